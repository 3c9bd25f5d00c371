import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from packed_set import PackedSet, make_packed_set, tiny_teacher, tiny_training

from pipeline_lib.clips import decoding
from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.training.networks import load_network
from pipeline_lib.training.run import train
from pipeline_lib.training.signals import EXIT_INTERRUPTED
from pipeline_lib.training.trainer import Trainer
from pipeline_lib.training.weights import load_metadata, load_weights

ARTEFACTS = ("weights.safetensors", "metrics.jsonl", "specification.json")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    return make_packed_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def teacher(packed: PackedSet) -> TrainingSpecification:
    recipe = {"steps": 40, "global_batch": 8, "dropout": 0.0, "schedule": {"base_rate": 0.1, "milestones": [24]}}
    model = {"name": "s3dg_slim", "options": {"depth_multiplier": 0.0625, "minimum_depth": 8}}
    specification = tiny_teacher(packed, model=model, recipe={**recipe, "checkpoint_steps": 20})
    assert train(specification, packed.root, packed.layout.experiment("flow_tiny", "1", "0"), 0) == 0
    return specification


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ARTEFACTS}


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def student(packed: PackedSet, teacher: TrainingSpecification, **changes: object) -> TrainingSpecification:
    defaults = {"experiment": "d3d_tiny", "stage": "distill", "teacher": teacher, "motion": "exact"}
    return tiny_training(packed, **{**defaults, "objective": {"name": "distillation"}, **changes})


def test_a_network_learns_and_its_file_says_all(packed, teacher):
    folder = packed.layout.experiment("flow_tiny", "1", "0")
    log = lines(folder)
    assert [line["step"] for line in log] == list(range(1, 41))
    # Chance is ln 4 = 1.39.
    assert sum(line["total"] for line in log[-10:]) / 10 < 1.2
    network, metadata = load_network(folder / "weights.safetensors")
    assert metadata["classes"] == ["down", "left", "right", "up"]
    assert metadata["input"]["motion_bound"] == 4.0
    assert TrainingSpecification.model_validate(metadata["specification"]) == teacher
    assert json.loads((folder / "specification.json").read_text()) == metadata["specification"]
    inputs = sorted(metadata["provenance"]["inputs"])
    assert [key.partition("/")[0] for key in inputs] == ["frames", "motion"]
    assert all(key.endswith("/*.h5") for key in inputs)
    assert not network.training
    assert network(torch.zeros(1, 2, 8, 32, 32)).shape == (1, 4)
    assert list((folder / "tensorboard").iterdir())
    assert not (folder / "checkpoints").exists()


def test_two_runs_are_identical_to_the_bit_on_any_number_of_workers(packed, tmp_path):
    specification = tiny_training(packed, horizontal_flip="allowed")
    for name, workers in (("a", 0), ("b", 2)):
        assert train(specification, packed.root, tmp_path / name, workers) == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    other = tiny_training(packed, horizontal_flip="allowed", seed=1)
    train(other, packed.root, tmp_path / "c", 0)
    assert lines(tmp_path / "a")[0] != lines(tmp_path / "c")[0]


def test_a_finished_run_is_not_repeated(packed, tmp_path, capsys):
    specification = tiny_training(packed, recipe={"steps": 2})
    train(specification, packed.root, tmp_path / "run", 0)
    before = (tmp_path / "run" / "weights.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert train(specification, packed.root, tmp_path / "run", 0) == 0
    assert "is finished" in capsys.readouterr().err
    assert (tmp_path / "run" / "weights.safetensors").stat().st_mtime_ns == before
    train(tiny_training(packed, recipe={"steps": 3}), packed.root, tmp_path / "run", 0)
    assert len(lines(tmp_path / "run")) == 3


def start(specification: TrainingSpecification, packed: PackedSet, output: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "pipeline_lib", "train", "--specification", specification.model_dump_json()]
    command += ["--root", str(packed.root), "--output", str(output), "--loader-workers", "1"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def last_step(output: Path) -> int:
    return max((int(path.stem.removeprefix("step_")) for path in output.glob("checkpoints/step_*.pt")), default=0)


def wait_for_checkpoint(output: Path, process: "subprocess.Popen[str]", after: int = 0) -> None:
    deadline = time.monotonic() + 120
    while last_step(output) <= after:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


RESUMED = {"checkpoint_steps": 7, "log_steps": 4, "ema_decay": 0.9, "reestimate_batch_norm": 3}


@pytest.mark.parametrize("number", [0, *(pytest.param(n, marks=pytest.mark.soak) for n in range(1, 11))])
def test_a_killed_run_ends_with_the_same_bytes(packed, teacher, tmp_path, number):
    specification = student(packed, teacher, recipe={**RESUMED, "steps": 60})
    whole = tmp_path / "whole"
    assert train(specification, packed.root, whole, 0) == 0
    killed = tmp_path / "killed"
    process = start(specification, packed, killed)
    wait_for_checkpoint(killed, process)
    time.sleep(0.05 * number)
    process.kill()
    error = process.communicate(timeout=60)[1]
    assert process.returncode == -signal.SIGKILL, error
    assert not (killed / "weights.safetensors").exists()
    again = start(specification, packed, killed)
    error = again.communicate(timeout=120)[1]
    assert again.returncode == 0, error
    step = int(error.split("going on after step ")[1].split()[0])
    assert 0 < step < 60
    assert contents(killed) == contents(whole)


def test_a_run_that_is_asked_to_stop_saves_and_ends_with_the_same_bytes(packed, teacher, tmp_path):
    specification = student(packed, teacher, recipe={**RESUMED, "steps": 120})
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train(specification, packed.root, whole, 0) == 0
    step = 0
    for asked in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        process = start(specification, packed, stopped)
        wait_for_checkpoint(stopped, process, step)
        # The whole group, the loader's worker too: so does a terminal's Ctrl-C, and a cluster.
        os.killpg(process.pid, asked)
        error = process.communicate(timeout=60)[1]
        assert process.returncode == EXIT_INTERRUPTED, error
        assert "Traceback" not in error
        assert (f"going on after step {step}\n" in error) == (step > 0)
        earlier, step = step, int(error.split("stopped after step ")[1].split(";")[0])
        # It saved the very step that it finished.
        assert earlier < step == last_step(stopped) < 120
        assert not (stopped / "weights.safetensors").exists()
    process = start(specification, packed, stopped)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 0, error
    assert f"going on after step {step}\n" in error
    assert contents(stopped) == contents(whole)


def test_a_changed_weight_does_not_resume_the_old_checkpoints(packed, teacher, tmp_path, monkeypatch):
    recipe = {"steps": 6, "checkpoint_steps": 2}
    stopped = tmp_path / "run"

    def stop_after_four(self, *arguments):
        losses = original(self, *arguments)
        if self.step == 3:
            self.machine.request.signal = signal.SIGUSR1
        return losses

    original = Trainer._forward
    monkeypatch.setattr(Trainer, "_forward", stop_after_four)
    assert train(student(packed, teacher, recipe=recipe), packed.root, stopped, 0) == EXIT_INTERRUPTED
    monkeypatch.undo()
    assert list((stopped / "checkpoints").glob("step_000000004.pt"))
    changed = student(packed, teacher, recipe=recipe, objective={"name": "distillation", "weight": 5.0})
    assert train(changed, packed.root, stopped, 0) == 0
    assert (stopped / "checkpoints.aside").is_dir()
    train(changed, packed.root, tmp_path / "fresh", 0)
    assert contents(stopped) == contents(tmp_path / "fresh")


@pytest.mark.parametrize(
    "objective",
    [{"name": "distillation"}, {"name": "distillation", "endpoint": "Mixed_4f", "weight": 100.0}],
    ids=["logits", "Mixed_4f"],
)
def test_distillation_nears_the_teacher_and_leaves_it_as_it_is(packed, teacher, tmp_path, monkeypatch, objective):
    seen: list[torch.nn.Module] = []
    original = Trainer.run

    def run(self):
        own = self.losses.keywords["teacher"]
        before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
        assert original(self)
        seen.append(own)
        assert not own.training
        for name, tensor in own.state_dict().items():
            assert torch.equal(tensor, before[name]), name
        assert all(parameter.grad is None for parameter in own.parameters())
        return True

    monkeypatch.setattr(Trainer, "run", run)
    recipe = {"steps": 60, "global_batch": 8, "dropout": 0.0, "schedule": {"base_rate": 0.01, "milestones": [40]}}
    # It sees flow as well, so that a few steps suffice.
    changes = {"modality": "flow", "model": teacher.model.model_dump(), "objective": objective}
    specification = student(packed, teacher, recipe=recipe, **changes)
    train(specification, packed.root, tmp_path / "d3d", 0)
    assert seen
    log = lines(tmp_path / "d3d")
    weighted = objective.get("weight", 1.0) * log[0]["distillation"]
    assert log[0]["total"] == pytest.approx(log[0]["action"] + weighted, rel=1e-5)
    early, late = (sum(line["distillation"] for line in part) / 15 for part in (log[:15], log[-15:]))
    assert late < 0.9 * early
    inputs = load_metadata(tmp_path / "d3d" / "weights.safetensors")["provenance"]["inputs"]
    assert [key.partition("/")[0] for key in sorted(inputs)] == ["experiments", "frames", "motion"]


def test_fine_tuning_starts_from_the_sources_weights(packed, teacher, tmp_path):
    source = packed.layout.experiment("flow_tiny", "1", "0")
    changes: dict[str, object] = {"start": "flow_tiny/1-0", "experiment": "tuned", "stage": "finetune"}
    changes["model"] = teacher.model.model_dump()
    specification = tiny_teacher(packed, **changes, recipe={"steps": 1, "schedule": {"base_rate": 1e-12}})
    train(specification, packed.root, tmp_path / "tuned", 0)
    tuned, first = (
        load_weights(tmp_path / "tuned" / "weights.safetensors")[0],
        load_weights(source / "weights.safetensors")[0],
    )
    for name, tensor in first.items():
        if "running" not in name and "num_batches" not in name:
            assert torch.allclose(tuned[name], tensor, atol=1e-7), name
    with pytest.raises(UserError, match="holds another network"):
        train(tiny_training(packed, start="flow_tiny/1-0"), packed.root, tmp_path / "wrong", 0)
    with pytest.raises(UserError, match=r"nothing/1-0/weights\.safetensors is missing"):
        train(tiny_training(packed, start="nothing/1-0"), packed.root, tmp_path / "none", 0)


def test_accumulated_passes_give_the_gradient_of_the_whole_batch(packed, tmp_path):
    whole = tiny_training(packed, recipe={"steps": 1, "dropout": 0.0, "global_batch": 8})
    parts = tiny_training(packed, recipe={"steps": 1, "dropout": 0.0, "global_batch": 8, "batch_norm_batch": 2})
    for name, specification in (("whole", whole), ("parts", parts)):
        train(specification, packed.root, tmp_path / name, 0)
    # Batch normalisation sees 8 clips in one and 2 in the other: close, and not equal.
    left, right = lines(tmp_path / "whole")[0], lines(tmp_path / "parts")[0]
    assert left["total"] == pytest.approx(right["total"], rel=0.2)
    assert left != right


def test_the_rate_of_another_batch_is_scaled_and_said(packed, tmp_path, capsys):
    recipe = {"steps": 2, "global_batch": 8, "schedule": {"base_rate": 0.01, "per_clips": 2}}
    train(tiny_training(packed, recipe=recipe), packed.root, tmp_path / "scaled", 0)
    assert "rate 0.01 per 2 clips × 8 clips = 0.04; global batch 8" in capsys.readouterr().err
    plain = {**recipe, "schedule": {"base_rate": 0.04}}
    train(tiny_training(packed, recipe=plain), packed.root, tmp_path / "plain", 0)
    assert lines(tmp_path / "scaled") == lines(tmp_path / "plain")
    assert lines(tmp_path / "plain")[0]["rate"] == 0.04


def test_a_non_finite_loss_names_the_videos(packed, tmp_path):
    wild = tiny_training(packed, recipe={"schedule": {"base_rate": 1e30, "milestones": []}})
    with pytest.raises(UserError, match=r"loss is not finite at step .*v0\d\d.*Last good checkpoint"):
        train(wild, packed.root, tmp_path / "wild", 0)


def test_weights_that_are_not_finite_are_never_kept(packed, tmp_path):
    # The loss of the only step is still finite; what the rate makes of the weights is not.
    specification = tiny_training(packed, recipe={"steps": 1, "schedule": {"base_rate": 1e39}})
    with pytest.raises(UserError, match=r"weights are not finite after step 1\. Last good checkpoint: none"):
        train(specification, packed.root, tmp_path / "run", 0)
    assert not list((tmp_path / "run").rglob("*.pt"))
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_a_frozen_networks_statistics_are_not_computed_anew(packed):
    frozen = {"name": "flow_regression", "action_weight": 0.0, "freeze": True}
    with pytest.raises(UserError, match=r"recipe\.reestimate_batch_norm"):
        tiny_training(packed, objective=frozen, motion="exact", recipe={"reestimate_batch_norm": 2})


def test_a_compiled_network_learns_the_same(packed, tmp_path, monkeypatch):
    compiled: list[object] = []
    original = torch.compile

    def traced(module, **settings):
        compiled.append(module)
        # Traced as for any compiler, then run as it is: what a compiler would make of it takes minutes.
        return original(module, backend="eager", **settings)

    plain = tiny_training(packed, recipe={"steps": 3})
    train(plain, packed.root, tmp_path / "plain", 0)
    monkeypatch.setattr(torch, "compile", traced)
    fast = plain.model_copy(update={"hardware": plain.hardware.model_copy(update={"compile": True})})
    train(fast, packed.root, tmp_path / "compiled", 0)
    assert len(compiled) == 1
    one, other = (load_weights(tmp_path / name / "weights.safetensors")[0] for name in ("plain", "compiled"))
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[name], other[name], rtol=1e-4, atol=1e-5) for name in one)


def test_skipped_steps_leave_no_trace(packed, tmp_path, monkeypatch):
    specification = tiny_training(packed, recipe={"maximum_skipped_steps": 1, "steps": 4})
    original = Trainer._forward

    def poisoned(self, wrapped, batch, group):
        if self.step == 2:
            batch = {**batch, "rgb": batch["rgb"] * float("nan")}
        return original(self, wrapped, batch, group)

    monkeypatch.setattr(Trainer, "_forward", poisoned)
    train(specification, packed.root, tmp_path / "run", 0)
    assert ["total" in line for line in lines(tmp_path / "run")] == [True, True, False, True]
    tensors, _ = load_weights(tmp_path / "run" / "weights.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_a_training_on_a_few_videos_reads_no_other_one(packed, tmp_path, monkeypatch):
    seen: set[int] = set()
    original = Trainer._forward

    def watched(self, model, batch, group):
        seen.update(batch["videos"].tolist())
        return original(self, model, batch, group)

    monkeypatch.setattr(Trainer, "_forward", watched)
    specification = tiny_training(packed, recipe={"steps": 5, "global_batch": 4})
    assert train(specification, packed.root, tmp_path / "run", 0, overfit=3) == 0
    assert seen == {0, 1, 2}
    # Another number is another training, not a finished one.
    assert train(specification, packed.root, tmp_path / "run", 0, overfit=5) == 0
    assert seen == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("standardised", [False, True])
def test_validation_changes_nothing_of_a_classifier_on_a_frozen_trunk(packed, tmp_path, standardised):
    changes = {"objective": {"name": "classification", "frozen": True, "standardised": standardised}}
    changes["model"] = {"name": "f_r2d_18", "options": {"width": 8}}
    for name, steps in (("plain", 0), ("watched", 1)):
        recipe = {"steps": 4, "dropout": 0.5, "validation_steps": steps, "reestimate_batch_norm": 0}
        train(tiny_training(packed, recipe=recipe, **changes), packed.root, tmp_path / name, 0)
    assert [line for line in lines(tmp_path / "watched") if "total" in line] == lines(tmp_path / "plain")
    one, other = (load_weights(tmp_path / name / "weights.safetensors")[0] for name in ("plain", "watched"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_no_flow_is_read_where_none_is_needed(packed, tmp_path, monkeypatch):
    def refuse(*_arguments, **_options):
        raise AssertionError("motion was read")

    monkeypatch.setattr(decoding, "decode_motion", refuse)
    monkeypatch.setattr("pipeline_lib.clips.dataset.decode_motion", refuse)
    root = tmp_path / "rgb_only"
    shutil.copytree(packed.root / "frames", root / "frames")
    shutil.copytree(packed.root / "manifests", root / "manifests")
    assert train(tiny_training(packed, recipe={"steps": 1}), root, tmp_path / "run", 0) == 0


def test_the_command_reports_a_users_mistake_without_a_traceback(packed, tmp_path):
    specification = tiny_training(packed, dataset="absent")
    process = start(specification, packed, tmp_path / "run")
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert error.startswith("error: ")
    assert "Traceback" not in error
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".weights.safetensors.lock"]
