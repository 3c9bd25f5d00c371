import math

import pytest
import torch

from pipeline_lib.configuration.objectives import FlowRegression, Model
from pipeline_lib.training.networks import build_network
from pipeline_lib.training.objectives.flow_regression import FlowRegressionObjective, flow_loss

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
