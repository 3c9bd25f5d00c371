"""The best checkpoint stays beside the last ones, and its weights are the final ones where the recipe says so."""

import hashlib
import json
import signal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from packed_set import CLASSES, PackedSet, make_packed_set, tiny_training

from pipeline_lib.artefacts.records import read_record
from pipeline_lib.artefacts.tables import write_table
from pipeline_lib.clips.batches import to_network_input
from pipeline_lib.clips.dataset import ClipReader
from pipeline_lib.clips.index import build_index
from pipeline_lib.clips.protocol_clips import video_requests
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.training import Recipe
from pipeline_lib.planning.plan import load_plan
from pipeline_lib.training import validation
from pipeline_lib.training.checkpoints import Checkpoints
from pipeline_lib.training.networks import load_network
from pipeline_lib.training.run import train
from pipeline_lib.training.signals import EXIT_INTERRUPTED
from pipeline_lib.training.trainer import Trainer
from pipeline_lib.training.weights import load_weights

# Behind step 8 the rate is forty times what is good: the last weights are bad ones.
SPOILT = {"base_rate": 0.05, "milestones": [8], "factor": 40.0}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    return make_packed_set(tmp_path_factory.mktemp("best"))


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def state(value: float) -> dict[str, object]:
    return {"module": {"w": torch.full((3,), value)}}


def test_the_best_one_outlives_the_last_ones(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c", "origin", keep=1)
    checkpoints.set_aside_others()
    assert checkpoints.best() is None
    for step in (5, 10, 15):
        checkpoints.save(step, state(step), best=step == 5)
    assert [path.name for path in checkpoints.paths()] == ["step_000000015.pt"]
    step, loaded = checkpoints.best()
    assert (step, loaded["module"]["w"].tolist()) == (5, [5.0] * 3)
    assert checkpoints.latest()[0] == 15
    checkpoints.save(20, state(20), best=True)
    assert checkpoints.best()[0] == 20
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["best.pt", "digest", "step_000000020.pt"]
    checkpoints.best_path.write_bytes(checkpoints.best_path.read_bytes()[:-1])
    assert checkpoints.best() is None


def tensors_of(packed: PackedSet, output: Path, steps: int) -> dict[str, torch.Tensor]:
    """What the same training has after so many steps."""
    specification = tiny_training(packed, recipe={"schedule": SPOILT, "steps": steps})
    train(specification, packed.root, output, 0)
    return load_weights(output / "weights.safetensors")[0]


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_the_least_training_loss_decides_and_an_interruption_does_not(packed, tmp_path, monkeypatch):
    recipe = {"schedule": SPOILT, "steps": 12, "checkpoint_steps": 2, "keep_checkpoints": 1, "final_weights": "best"}
    specification = tiny_training(packed, recipe=recipe)
    train(specification, packed.root, tmp_path / "whole", 0)
    totals = [line["total"] for line in lines(tmp_path / "whole")]
    means = {step: sum(totals[step - 2 : step]) / 2 for step in range(2, 13, 2)}
    best = min(means, key=lambda step: means[step])
    assert best < 12, "the schedule was to spoil the last weights"
    weights = load_weights(tmp_path / "whole" / "weights.safetensors")[0]
    assert equal(weights, tensors_of(packed, tmp_path / "short", best))

    original = Trainer._forward

    def stop_in_step_ten(self, *arguments):
        if self.step == 10:
            self.machine.request.signal = signal.SIGTERM
        return original(self, *arguments)

    monkeypatch.setattr(Trainer, "_forward", stop_in_step_ten)
    assert train(specification, packed.root, tmp_path / "stopped", 0) == EXIT_INTERRUPTED
    monkeypatch.undo()
    left = sorted(path.name for path in (tmp_path / "stopped" / "checkpoints").glob("*.pt"))
    assert left == ["best.pt", "step_000000011.pt"]
    assert train(specification, packed.root, tmp_path / "stopped", 0) == 0
    for name in ("weights.safetensors", "metrics.jsonl"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_validation_decides_where_there_is_one_and_changes_nothing_else(packed, tmp_path):
    recipe = {"schedule": SPOILT, "steps": 12}
    train(tiny_training(packed, recipe=recipe), packed.root, tmp_path / "plain", 0)
    watched = {**recipe, "validation_steps": 3, "final_weights": "best"}
    train(tiny_training(packed, recipe=watched), packed.root, tmp_path / "watched", 0)
    log = lines(tmp_path / "watched")
    assert [line for line in log if "total" in line] == lines(tmp_path / "plain")
    losses = {line["step"]: line["validation_loss"] for line in log if "validation_loss" in line}
    assert list(losses) == [3, 6, 9, 12]
    best = min(losses, key=lambda step: losses[step])
    weights = load_weights(tmp_path / "watched" / "weights.safetensors")[0]
    assert equal(weights, tensors_of(packed, tmp_path / "short", int(best)))

    # The figures, by the evaluation's own clips.
    network, _ = load_network(tmp_path / "watched" / "weights.safetensors")
    index = build_index(packed.layout, packed.name, "short36", None, packed.num_shards, 1, "validation")
    sampling = tiny_training(packed).recipe.sampling
    requests = [video_requests(Protocol(num_clips=1), sampling, index.video(row))[0] for row in range(len(index))]
    labels = torch.tensor([index.labels[row][0] for row in range(len(index))])
    clips = to_network_input(ClipReader(index, ["rgb"]).read(requests), torch.device("cpu"))
    with torch.no_grad():
        logits = network(clips["rgb"])
    at_best = next(line for line in log if line["step"] == best and "validation_loss" in line)
    assert at_best["validation_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)
    assert at_best["validation_top1"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())


def test_a_curve_is_drawn_by_default_from_a_fixed_part_of_the_list_and_changes_nothing(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "CLIPS_PER_CURVE_VIDEO", 4)
    monkeypatch.setattr(validation, "CURVE_VIDEOS", (2, 3))
    recipe = {"schedule": {"base_rate": 0.01}, "steps": 20, "checkpoint_steps": 8, "reestimate_batch_norm": 0}
    drawn, plain = (tiny_training(packed, recipe={**recipe, **own}) for own in ({}, {"validation_steps": 0}))
    assert drawn.recipe.validation_steps is None
    original = Trainer._forward

    def stop_in_step_eleven(self, *arguments):
        if self.step == 11 and not self.machine.request.signal:
            self.machine.request.signal = signal.SIGTERM
        return original(self, *arguments)

    train(plain, packed.root, tmp_path / "plain", 0)
    train(drawn, packed.root, tmp_path / "drawn", 0)
    monkeypatch.setattr(Trainer, "_forward", stop_in_step_eleven)
    assert train(drawn, packed.root, tmp_path / "stopped", 0) == EXIT_INTERRUPTED
    monkeypatch.setattr(Trainer, "_forward", original)
    assert train(drawn, packed.root, tmp_path / "stopped", 0) == 0
    log = lines(tmp_path / "drawn")
    assert [line for line in log if "total" in line] == lines(tmp_path / "plain")
    assert [line["step"] for line in log if "validation_top1" in line] == list(range(2, 21, 2))
    weights = [load_weights(tmp_path / name / "weights.safetensors")[0] for name in ("plain", "drawn", "stopped")]
    assert equal(weights[0], weights[1]) and equal(weights[0], weights[2])
    assert lines(tmp_path / "stopped") == log
    # Another validation list makes no other training.
    record = read_record(tmp_path / "drawn" / "weights.safetensors")
    assert record is not None and "validation" not in record["parameters"]

    network, _ = load_network(tmp_path / "drawn" / "weights.safetensors")
    index = build_index(packed.layout, packed.name, "short36", None, packed.num_shards, 1, "validation")
    rows = sorted(range(len(index)), key=lambda row: hashlib.sha256(index.ids[row].encode()).hexdigest())[:3]
    requests = [video_requests(Protocol(num_clips=1), drawn.recipe.sampling, index.video(row))[0] for row in rows]
    clips = to_network_input(ClipReader(index, ["rgb"]).read(requests), torch.device("cpu"))
    with torch.no_grad():
        logits = network(clips["rgb"])
    labels = torch.tensor([index.labels[row][0] for row in rows])
    assert log[-1]["validation_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)


def test_a_curve_costs_at_most_a_twentieth_of_the_trained_clips_and_a_short_training_has_none():
    for name, recipe in load_plan(Path()).configuration.recipes.items():
        count = validation.curve_videos(recipe)
        assert validation.CURVE_CHECKS * count <= recipe.steps * recipe.global_batch / 20, name
        assert count in (0, *range(8, 257)), name
    recipe = Recipe.model_validate(tiny := {
        "source": "", "optimiser": {}, "schedule": {"base_rate": 0.1}, "sampling": {"crop": 224},
        "steps": 200, "global_batch": 8,
    })  # fmt: skip
    assert validation.curve_videos(recipe) == 8
    assert validation.curve_videos(Recipe.model_validate(tiny | {"steps": 199})) == 0
    assert validation.curve_videos(Recipe.model_validate(tiny | {"validation_steps": 0})) == 0
    assert recipe.shrunk(0.5).validation_steps is None


def test_validation_counts_every_label_of_a_video(tmp_path):
    packed = make_packed_set(tmp_path / "several")
    manifest = pd.read_parquet(packed.layout.manifest(packed.name))
    rows = manifest.index[manifest["subset_1"] == "validation"]
    for row in rows:
        # Three of the four labels: whatever is predicted, it is seldom the first of them and often one.
        first = CLASSES.index(manifest.at[row, "labels"][0])
        manifest.at[row, "labels"] = [CLASSES[(first + other) % 4] for other in range(3)]
    write_table(packed.layout.manifest(packed.name), pa.Table.from_pandas(manifest))
    specification = tiny_training(packed, recipe={"steps": 2, "validation_steps": 2, "schedule": {"base_rate": 0.01}})
    train(specification, packed.root, tmp_path / "run", 0)
    network, _ = load_network(tmp_path / "run" / "weights.safetensors")
    index = build_index(packed.layout, packed.name, "short36", None, packed.num_shards, 1, "validation")
    assert all(len(labels) == 3 for labels in index.labels)
    sampling = specification.recipe.sampling
    requests = [video_requests(Protocol(num_clips=1), sampling, index.video(row))[0] for row in range(len(index))]
    clips = to_network_input(ClipReader(index, ["rgb"]).read(requests), torch.device("cpu"))
    with torch.no_grad():
        logits = network(clips["rgb"])
    losses = -F.log_softmax(logits, 1)
    found = next(line for line in lines(tmp_path / "run") if "validation_loss" in line)
    best = torch.stack([losses[row, list(labels)].min() for row, labels in enumerate(index.labels)])
    correct = [int(logits[row].argmax()) in labels for row, labels in enumerate(index.labels)]
    first = [int(logits[row].argmax()) == labels[0] for row, labels in enumerate(index.labels)]
    assert found["validation_loss"] == pytest.approx(best.mean().item(), rel=1e-4)
    assert found["validation_top1"] == pytest.approx(sum(correct) / len(correct))
    assert sum(correct) > sum(first)
