import math

import pytest
import torch
from packed_set import PackedSet, tiny_training

from pipeline_lib.configuration.objectives import FlowRegression, Model
from pipeline_lib.errors import UserError
from pipeline_lib.training.networks import build_network
from pipeline_lib.training.objectives.flow_regression import FlowRegressionObjective, build, flow_loss

NETWORK = Model(name="s3dg_slim", options={"depth_multiplier": 0.0625, "minimum_depth": 4})


def test_the_loss_by_hand():
    flow = torch.zeros(1, 2, 1, 1, 2)
    flow[0, :, 0, 0, 0] = torch.tensor([0.3, 0.4])
    # Magnitude 0.5, sin 0.8, cos 0.6 in the first pixel, zero motion in the second.
    predicted = torch.zeros(1, 3, 1, 1, 2)
    predicted[0, :, 0, 0, 0] = torch.tensor([0.7, 1.0, 0.0])
    predicted[0, :, 0, 0, 1] = torch.tensor([0.1, 5.0, 5.0])
    loss, error = flow_loss(predicted, flow)
    assert loss.item() == pytest.approx((0.2**2 + 0.5 * (0.2**2 + 0.6**2) + 0.1**2) / 6)
    assert error.item() == pytest.approx((math.dist((0.0, 0.7), (0.3, 0.4)) + 0.1) / 2)


def test_a_perfect_prediction_at_a_coarser_grid_has_no_loss():
    flow = torch.full((2, 2, 8, 32, 32), 0.25)
    root = math.sqrt(0.5)
    polar = torch.tensor([0.25 * math.sqrt(2), root, root]).view(1, 3, 1, 1, 1).expand(2, 3, 4, 8, 8)
    loss, error = flow_loss(polar, flow)
    assert loss.item() == pytest.approx(0.0, abs=1e-10)
    assert error.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("decoder", "endpoint"), [("simple", "MaxPool_3a_3x3"), ("none", "predicted_flow")])
def test_in_pixels_the_loss_is_that_of_flow_in_pixels(decoder, endpoint):
    torch.manual_seed(0)
    clip, flow = torch.rand(2, 3, 8, 32, 32), torch.rand(2, 2, 8, 32, 32) - 0.5
    batch = {"rgb": clip, "flow": flow, "labels": torch.tensor([0, 1])}
    predicted = torch.rand(2, 3, 4, 8, 8)

    def student(_clip, names):
        return {"logits": torch.zeros(2, 4), "predicted_flow": predicted}

    def losses(**changes):
        settings = FlowRegression(decoder=decoder, endpoint=endpoint, action_weight=0.0)
        return FlowRegressionObjective(settings, **changes).losses(student, batch)

    found = losses(bound=20.0)
    # What a decoder says is in pixels. A network's own flow is in units of the bound, as its temporal stream reads it.
    factor = torch.tensor([1.0 if decoder == "simple" else 20.0, 1.0, 1.0]).view(1, 3, 1, 1, 1)
    loss, error = flow_loss(predicted * factor, flow * 20.0)
    assert found["flow"].item() == pytest.approx(loss.item(), rel=1e-6)
    assert found["endpoint_error"].item() == pytest.approx(error.item(), rel=1e-6)
    plain = losses()
    assert plain["flow"].item() == pytest.approx(flow_loss(predicted, flow)[0].item(), rel=1e-6)
    if decoder == "none":
        assert found["endpoint_error"].item() == pytest.approx(20.0 * plain["endpoint_error"].item(), rel=1e-4)


def test_pixels_are_the_default_and_need_the_motion_kinds_bound(tmp_path):
    packed = PackedSet(tmp_path, "squares", 1)
    kind = {"method": "tvl1", "gap": 1, "bound": 4.0}

    def built(motion_kind, **objective):
        objective = {"name": "flow_regression", **objective}
        return build(tiny_training(packed, objective=objective, motion="exact", motion_kind=motion_kind))

    assert built(kind).bound == 4.0
    assert built(kind, unit="bound").bound == built(None, unit="bound").bound == 1.0
    with pytest.raises(UserError, match=r"objective\.unit"):
        built(None)


@pytest.mark.parametrize("decoder", ["simple", "spatial", "pwc"])
@pytest.mark.parametrize("freeze", [False, True])
def test_what_learns(decoder, freeze):
    torch.manual_seed(0)
    network = build_network(NETWORK, 4, "rgb")
    objective = FlowRegressionObjective(FlowRegression(decoder=decoder, freeze=freeze, action_weight=0.0))
    module = objective.attach(network).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    batch = {
        "rgb": torch.rand(2, 3, 8, 32, 32),
        "flow": torch.rand(2, 2, 8, 32, 32),
        "labels": torch.tensor([0, 1]),
    }
    losses = objective.losses(module, batch)
    losses["total"].backward()
    assert losses["total"].item() == pytest.approx(losses["flow"].item())
    assert all(parameter.grad is not None for parameter in module.decoder.parameters())
    stem = next(network.parameters())
    assert (stem.grad is None) == freeze
    moved = any(not torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert moved != freeze


def test_a_network_decodes_the_flow_that_it_sees():
    torch.manual_seed(0)
    objective = FlowRegressionObjective(FlowRegression(decoder="simple", action_weight=0.0), "flow")
    assert objective.modalities == ("flow",)
    module = objective.attach(build_network(NETWORK, 4, "flow")).train()
    batch = {"flow": torch.rand(2, 2, 8, 32, 32), "labels": torch.tensor([0, 1])}
    losses = objective.losses(module, batch)
    assert losses["total"].item() == pytest.approx(losses["flow"].item())


def test_logits_have_no_grid():
    with pytest.raises(ValueError, match="spatial grid"):
        FlowRegression(endpoint="logits")
