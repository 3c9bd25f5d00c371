"""torchvision's video transformers: its logits from its weights, as students of a flow teacher, and exported."""

import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torchvision
import yaml
from packed_set import PackedSet, make_packed_set, tiny_teacher, tiny_training
from torch import Tensor, nn
from torchvision.models.video.mvit import MViT
from torchvision.models.video.swin_transformer import SwinTransformer3d
from whole_scores import whole

from pipeline_lib.__main__ import main
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.specification import EvaluationSpecification, TrainingSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation import runner
from pipeline_lib.models import mvit
from pipeline_lib.models.catalogue import resolve
from pipeline_lib.models.importing.publishers import convert
from pipeline_lib.models.importing.sources import IMAGENET, PYSLOWFAST, SOURCES
from pipeline_lib.models.network import VideoNetwork
from pipeline_lib.tasks.classification.scores import ScoreFile
from pipeline_lib.training.networks import build_network, initialise, load_network
from pipeline_lib.training.objectives.base import EndpointForward
from pipeline_lib.training.run import build_objective, train
from pipeline_lib.training.signals import EXIT_INTERRUPTED
from pipeline_lib.training.trainer import Trainer
from pipeline_lib.training.weights import load_weights, save_weights

MVIT, SWIN = "torchvision/mvit_v2_s", "torchvision/swin3d_t"
SMALL: dict[str, dict[str, Any]] = {
    MVIT: {"depths": [1, 1], "width": 8, "num_frames": 8, "side": 32},
    SWIN: {"depths": [1, 1], "width": 8, "num_heads": [1, 2], "window": [2, 4, 4]},
}


def built(name: str, num_classes: int = 5, in_channels: int = 3, **options: Any) -> VideoNetwork:
    module, defaults = resolve(name)
    network: VideoNetwork = importlib.import_module(module).build(num_classes, in_channels, **{**defaults, **options})
    return network


def theirs(name: str, num_classes: int = 5) -> nn.Module:
    """torchvision's class, built small as ``SMALL`` says."""
    torch.manual_seed(0)
    if name == MVIT:
        settings = mvit.block_settings([1, 1], 8, 1)
        size: dict[str, Any] = {"spatial_size": (32, 32), "temporal_size": 8, "block_setting": settings}
        options = {"residual_pool": True, "residual_with_cls_embed": False, "rel_pos_embed": True}
        return MViT(**size, **options, proj_after_attn=True, num_classes=num_classes)
    return SwinTransformer3d([2, 4, 4], 8, [1, 1], [1, 2], [2, 4, 4], num_classes=num_classes)


# torchvision's own weights


@pytest.mark.parametrize(("name", "size"), [(MVIT, (8, 32, 32)), (SWIN, (8, 32, 32)), (SWIN, (5, 36, 44))])
def test_equal_weights_give_torchvisions_logits(name: str, size: tuple[int, int, int]) -> None:
    source, reference = SOURCES[name], theirs(name).eval()
    state, about = convert(source, reference.state_dict(), options=SMALL[name])
    assert about == {
        "model": {"name": name, "options": SMALL[name]},
        "two_dimensional": False,
        "num_classes": 5,
        "in_channels": 3,
    }
    network = built(name, **SMALL[name]).eval()
    network.load_state_dict(state)
    clip = torch.rand(2, 3, *size)
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in source.normalisation)
    with torch.no_grad():
        # Ours takes [-1, 1] and brings it to the mean and deviation that the weights were trained with.
        assert torch.allclose(network(clip * 2 - 1), reference((clip - mean) / std), atol=1e-5)


@pytest.mark.parametrize(("name", "normalisation"), [(MVIT, PYSLOWFAST), (SWIN, IMAGENET)])
def test_the_named_networks_take_the_public_weights(name: str, normalisation: Any) -> None:
    """Names, shapes and normalisation; the weights themselves cannot be fetched in a test."""
    short = name.removeprefix("torchvision/")
    public = torchvision.models.get_model_weights(short)["KINETICS400_V1"]
    preset = public.transforms()
    assert (tuple(preset.mean), tuple(preset.std)) == normalisation == SOURCES[name].normalisation
    with torch.device("meta"):
        reference = torchvision.models.get_model(short, weights=None)
        state, about = convert(SOURCES[name], reference.state_dict())
        network = built(name, 400)
    assert about["num_classes"] == 400
    assert sum(parameter.numel() for parameter in network.parameters()) == public.meta["num_params"]
    assert {key: tensor.shape for key, tensor in network.state_dict().items()} == {
        key: tensor.shape for key, tensor in state.items()
    }


@pytest.mark.parametrize("name", [MVIT, SWIN])
def test_public_weights_start_a_network_for_other_classes_and_for_flow(name: str, tmp_path: Path) -> None:
    reference = theirs(name, 400)
    flow, _ = convert(SOURCES[name], reference.state_dict(), options=SMALL[name], in_channels=2)
    save_weights(tmp_path / "start.safetensors", flow, {})
    network = built(name, 7, 2, **SMALL[name])
    assert initialise(network, tmp_path / "start.safetensors") == ["head.fc.bias", "head.fc.weight"]
    stem = {MVIT: "conv_proj", SWIN: "patch_embed.proj"}[name]
    colours = reference.get_submodule(stem).weight  # type: ignore[union-attr]
    own: Tensor = network.body.get_submodule(stem).weight  # type: ignore[union-attr, assignment, operator]
    assert torch.allclose(own, colours.mean(1, keepdim=True).expand_as(own))  # type: ignore[operator, union-attr]


# As students


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    return make_packed_set(tmp_path_factory.mktemp("set"), num_train=8, num_validation=4)


@pytest.fixture(scope="module")
def teacher(packed: PackedSet) -> TrainingSpecification:
    specification = tiny_teacher(packed, recipe={"steps": 2, "checkpoint_steps": 100})
    assert train(specification, packed.root, packed.layout.experiment("flow_tiny", "1", "0"), 0) == 0
    return specification


def student(
    packed: PackedSet, teacher: TrainingSpecification, model: dict[str, Any], **changes: Any
) -> TrainingSpecification:
    recipe = {
        "steps": 6,
        "checkpoint_steps": 2,
        "optimiser": {"name": "adamw", "weight_decay": 0.05, "weight_decay_norm": 0.0},
        "schedule": {"base_rate": 0.002, "milestones": [5]},
        "batch_norm_momentum": None,
        "ema_decay": 0.9,
    }
    objective = {"name": "distillation", **changes}
    defaults = {"experiment": "student", "stage": "distill", "motion": "exact", "model": model}
    return tiny_training(packed, **defaults, teacher=teacher, objective=objective, recipe=recipe)


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


PLACES = [
    pytest.param(MVIT, {}, id="mvit at the logits"),
    pytest.param(SWIN, {"endpoint": "features.2", "teacher_endpoint": "Mixed_4f"}, id="swin at features"),
    pytest.param(MVIT, {"endpoint": "blocks.1", "teacher_endpoint": "Mixed_3c"}, id="mvit at features"),
]


@pytest.mark.parametrize(("name", "changes"), PLACES)
def test_a_transformer_learns_from_a_flow_teacher_and_resumes_exactly(
    name: str,
    changes: dict[str, Any],
    packed: PackedSet,
    teacher: TrainingSpecification,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    specification = student(packed, teacher, {"name": name, "options": SMALL[name]}, **changes)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train(specification, packed.root, whole, 0) == 0
    losses = [line["distillation"] for line in log(whole)]
    assert len(losses) == 6
    assert all(np.isfinite(losses))

    step = Trainer._one_step

    def stops_after_three(self: Trainer, *arguments: Any) -> bool:
        if self.step == 3:
            self.machine.request.signal = 15
        return step(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_one_step", stops_after_three)
        assert train(specification, packed.root, stopped, 0) == EXIT_INTERRUPTED
    assert train(specification, packed.root, stopped, 0) == 0
    for artefact in ("weights.safetensors", "metrics.jsonl"):
        assert (stopped / artefact).read_bytes() == (whole / artefact).read_bytes()
    # The adapter is thrown away: these are the tensors of the network alone.
    tensors, _ = load_weights(whole / "weights.safetensors")
    assert set(tensors) == set(build_network(specification.model, 4, "rgb").state_dict())


@pytest.mark.parametrize("name", [MVIT, SWIN])
def test_a_transformer_is_evaluated_and_exported(
    name: str, packed: PackedSet, teacher: TrainingSpecification, capsys: pytest.CaptureFixture[str]
) -> None:
    specification = student(packed, teacher, {"name": name, "options": SMALL[name]})
    specification = specification.model_copy(update={"experiment": name.rpartition("/")[2]})
    layout = packed.layout
    folder = layout.experiment(specification.experiment, "1", "0")
    assert train(specification, packed.root, folder, 0) == 0
    protocol = Protocol(num_clips=2)
    output = layout.evaluation(specification.experiment, "1", "0", "p")
    runner.evaluate(
        EvaluationSpecification(training=specification, protocol_name="p", protocol=protocol), packed.root, output, 0
    )
    scores = whole(ScoreFile(output / "scores.h5"))
    assert scores.logits.shape == (8, 4)
    network, _ = load_network(folder / "weights.safetensors")

    assert main(["export", specification.experiment, "--root", str(packed.root)]) == 0
    assert "model.onnx" in capsys.readouterr().out
    exported = packed.root / "exports" / specification.experiment / "1-0" / "model.onnx"
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    clip = torch.rand(3, 3, 8, 32, 32) * 2 - 1
    with torch.no_grad():
        expected = network(clip).numpy()
    np.testing.assert_allclose(
        session.run(["logits"], {"clip": clip.numpy()})[0], expected, atol=1e-3 * np.abs(expected).max()
    )


# Adapters


def test_the_documents_overlay_for_an_own_folder_is_valid(repository: Path, planned: Any) -> None:
    (example,) = [
        yaml.safe_load(text)
        for text in re.findall(r"```yaml\n(.*?)```", (repository / "docs" / "models.md").read_text(), re.DOTALL)
        if text.startswith("experiments:") and "d3d_mvit_mine" in text
    ]
    plan = planned(example | {"datasets": {"mine": {"videos": ["/data/mine"], "format": "folder"}}})
    (run,) = plan.runs("d3d_mvit_mine")
    specification = run.training
    assert specification.start == "imported/torchvision/mvit_v2_s"
    objective = build_objective(specification)
    with torch.device("meta"):
        attached = objective.attach(build_network(specification.model, 4, "rgb"))
    adapter = attached.adapter
    assert (adapter.convolution.in_channels, adapter.convolution.out_channels) == (384, 832)
    assert (adapter.t.shape, adapter.h, adapter.w) == ((4, 8), None, None)


def wider(**options: Any) -> dict[str, Any]:
    return {"name": "s3dg_slim", "options": {"depth_multiplier": 0.125, "minimum_depth": 8, **options}}


def test_students_of_another_width_learn_through_an_adapter_too(
    packed: PackedSet, teacher: TrainingSpecification, tmp_path: Path
) -> None:
    settings = {"endpoint": "Mixed_4f", "weight": 100.0}
    specification = student(packed, teacher, wider(), **settings)
    assert train(specification, packed.root, tmp_path / "auto", 0) == 0
    assert [line["step"] for line in log(tmp_path / "auto")] == list(range(1, 7))
    refused = student(packed, teacher, wider(), **settings, adapter="none")
    with pytest.raises(UserError, match=r"Mixed_4f has the shape \(104, 2, 2, 2\) in the student and \(52, 2, 2, 2\)"):
        train(refused, packed.root, tmp_path / "none", 0)
    assert not (tmp_path / "none" / "weights.safetensors").exists()


@pytest.mark.parametrize("adapter", ["auto", "none"])
def test_equal_shapes_have_no_adapter(
    adapter: str, packed: PackedSet, teacher: TrainingSpecification, tmp_path: Path
) -> None:
    specification = student(packed, teacher, teacher.model.model_dump(), endpoint="Mixed_4f", adapter=adapter)
    attached = build_objective(specification).attach(build_network(specification.model, 4, "rgb"))
    assert type(attached) is EndpointForward


def test_an_endpoint_that_the_teacher_lacks_is_refused_before_the_training(
    packed: PackedSet, teacher: TrainingSpecification, tmp_path: Path
) -> None:
    specification = student(packed, teacher, {"name": MVIT, "options": SMALL[MVIT]}, endpoint="blocks.1")
    with pytest.raises(UserError, match=r"the teacher has no 'blocks\.1'; it has logits, Conv2d_1a_7x7"):
        train(specification, packed.root, tmp_path / "run", 0)
