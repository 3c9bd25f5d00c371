"""A temporal stream on predicted flow: pretrained on flow, then trained end to end (D3D, section 4.1)."""

import json
from pathlib import Path

import pytest
import torch
from packed_set import PackedSet, make_packed_set, tiny_teacher, tiny_training

from pipeline_lib.configuration.objectives import FlowRegression, Model
from pipeline_lib.errors import UserError
from pipeline_lib.models.decoders import polar_to_flow
from pipeline_lib.models.predicted_flow import Resampling
from pipeline_lib.training.networks import build_network, grouped, load_network
from pipeline_lib.training.objectives.flow_regression import FlowRegressionObjective
from pipeline_lib.training.run import train
from pipeline_lib.training.weights import load_weights

WIDTHS = {"depth_multiplier": 0.0625, "minimum_depth": 8}
NETWORK = {"name": "s3dg_predicted_flow", "options": WIDTHS}
PREDICTOR = "stages.predicted_flow."


def test_resampling_gives_the_flow_of_the_clips_grid():
    flow = torch.zeros(1, 2, 2, 3, 3)
    flow[:, 0], flow[:, 1] = 0.3, -0.4
    polar = torch.stack(
        [torch.full((1, 2, 3, 3), 0.5), torch.full((1, 2, 3, 3), -0.8), torch.full((1, 2, 3, 3), 0.6)], 1
    )
    assert torch.allclose(polar_to_flow(polar), flow, atol=1e-6)
    finer = Resampling((2, 8, 8))(polar)
    assert finer.shape == (1, 2, 4, 24, 24)
    assert torch.allclose(finer, flow[..., :1, :1, :1].expand_as(finer), atol=1e-3)
    # A direction of no length has a gradient all the same.
    still = torch.zeros(1, 3, 2, 3, 3, requires_grad=True)
    Resampling((2, 8, 8))(still).sum().backward()
    assert torch.isfinite(still.grad).all()


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    return make_packed_set(tmp_path_factory.mktemp("predicted"))


def test_the_predictor_learns_flow_and_both_train_end_to_end(packed):
    teacher = tiny_teacher(packed, model={"name": "s3dg_slim", "options": WIDTHS}, recipe={"steps": 4})
    folders = {name: packed.layout.experiment(name, "1", "0") for name in ("flow_tiny", "predictor", "whole")}
    train(teacher, packed.root, folders["flow_tiny"], 0)

    recipe = {"steps": 40, "dropout": 0.0, "schedule": {"base_rate": 0.05, "milestones": [30]}, "global_batch": 8}
    predictor = tiny_training(
        packed,
        experiment="predictor",
        stage="pretrain",
        model=NETWORK,
        motion="exact",
        start="flow_tiny/1-0",
        recipe={**recipe, "optimiser": {"name": "adamw", "weight_decay": 0.0}, "schedule": {"base_rate": 0.003}},
        objective={
            "name": "flow_regression",
            "endpoint": "predicted_flow",
            "decoder": "none",
            "unit": "bound",
            "action_weight": 0.0,
        },
    )
    train(predictor, packed.root, folders["predictor"], 0)
    log = lines(folders["predictor"])
    early, late = (sum(line["flow"] for line in part) / 5 for part in (log[:5], log[-5:]))
    assert late < 0.8 * early, (early, late)
    teacher_tensors, pretrained = (
        load_weights(folders[name] / "weights.safetensors")[0] for name in ("flow_tiny", "predictor")
    )
    # The temporal stream came from the teacher, and a loss on the flow alone does not train it.
    for name, tensor in teacher_tensors.items():
        if name.startswith(("stages.", "head.")) and "running" not in name and "num_batches" not in name:
            assert torch.equal(pretrained[name], tensor), name

    whole = tiny_training(
        packed,
        experiment="whole",
        stage="finetune",
        model=NETWORK,
        start="predictor/1-0",
        recipe={"steps": 2, "dropout": 0.0, "schedule": {"base_rate": 0.05, "milestones": []}},
    )
    train(whole, packed.root, folders["whole"], 0)
    network, metadata = load_network(folders["whole"] / "weights.safetensors")
    tensors = network.state_dict()
    for part in (f"{PREDICTOR}decoder.output.weight", f"{PREDICTOR}layers.Conv2d_1a_7x7.spatial.conv.weight"):
        assert not torch.equal(tensors[part], pretrained[part]), part
    assert not torch.equal(
        tensors["stages.Conv2d_1a_7x7.spatial.conv.weight"], teacher_tensors["stages.Conv2d_1a_7x7.spatial.conv.weight"]
    )
    assert metadata["input"]["modality"] == "rgb"
    assert network(torch.zeros(1, 3, 8, 32, 32)).shape == (1, 4)


def test_only_flow_is_taken_for_flow():
    network = build_network(Model.model_validate(NETWORK), 4, "rgb")
    FlowRegressionObjective(FlowRegression(endpoint="predicted_flow", decoder="none")).attach(network)
    with pytest.raises(UserError, match="Mixed_3b is not"):
        FlowRegressionObjective(FlowRegression(endpoint="Mixed_3b", decoder="none")).attach(network)
    with pytest.raises(ValueError, match="nothing would be trained"):
        FlowRegression(endpoint="predicted_flow", decoder="none", freeze=True)


def test_many_names_are_told_by_the_parts_that_hold_them():
    few = ["head.fc.bias", "head.fc.weight"]
    assert grouped(few) == "head.fc.bias, head.fc.weight"
    layers = [f"stages.predicted_flow.decoder.{layer}.{kind}" for layer in range(8) for kind in ("bias", "weight")]
    assert grouped([*few, *layers]) == "head.fc.bias (1), head.fc.weight (1), stages.predicted_flow.decoder (16)"
    assert grouped([f"part{index}.weight" for index in range(9)]).count("(1)") == 9
