import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline_lib.errors import UserError
from pipeline_lib.training.checkpoints import Checkpoints
from pipeline_lib.training.metrics_log import Means, MetricsLog
from pipeline_lib.training.weights import load_metadata, load_weights, save_weights


def state(value: float) -> dict[str, object]:
    return {"module": {"w": torch.full((3,), value)}, "log_size": 7}


def test_the_last_ones_are_kept_and_the_latest_comes_back(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c", "origin", keep=2)
    checkpoints.set_aside_others()
    assert checkpoints.latest() is None
    for step in (5, 10, 15):
        checkpoints.save(step, state(step))
    assert [path.name for path in checkpoints.paths()] == ["step_000000010.pt", "step_000000015.pt"]
    step, loaded = checkpoints.latest()
    assert step == 15
    assert loaded["module"]["w"].tolist() == [15.0] * 3


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "header"])
def test_a_damaged_last_one_is_passed_over(tmp_path, damage, capsys):
    checkpoints = Checkpoints(tmp_path / "c", "origin", keep=2)
    checkpoints.set_aside_others()
    for step in (5, 10):
        path = checkpoints.save(step, state(step))
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        content = content[: len(content) // 2]
    elif damage == "flip":
        content[-100] ^= 1
    elif damage == "empty":
        content = bytearray()
    else:
        content[0:1] = b"?"
    path.write_bytes(content)
    step, loaded = checkpoints.latest()
    assert step == 5
    assert loaded["module"]["w"].tolist() == [5.0] * 3
    assert "step_000000010.pt is damaged" in capsys.readouterr().err
    assert not path.exists()


def test_checkpoints_of_another_origin_are_set_aside(tmp_path, capsys):
    first = Checkpoints(tmp_path / "c", "lambda 1", keep=2)
    first.set_aside_others()
    first.save(5, state(5))
    second = Checkpoints(tmp_path / "c", "lambda 2", keep=2)
    second.set_aside_others()
    assert second.latest() is None
    assert (tmp_path / "c.aside" / "step_000000005.pt").is_file()
    assert "set aside" in capsys.readouterr().err
    second.save(3, state(3))
    second.set_aside_others()
    assert second.latest()[0] == 3


def test_a_kill_while_a_run_starts_again_forgets_no_checkpoint(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "c", "origin", keep=2)
    checkpoints.set_aside_others()
    checkpoints.save(5, state(5))

    # Whatever is written now is cut off in the middle.
    for name in ("write_text", "write_bytes"):
        original = getattr(Path, name)

        def torn(self, content, *rest, original=original):
            original(self, content[:3], *rest)
            raise KeyboardInterrupt

        monkeypatch.setattr(Path, name, torn)
    with suppress(KeyboardInterrupt):
        checkpoints.set_aside_others()
    monkeypatch.undo()
    checkpoints.set_aside_others()
    assert checkpoints.latest()[0] == 5


def test_weights_have_the_same_bytes_in_every_process(tmp_path):
    program = (
        "import sys, torch; from pathlib import Path; from pipeline_lib.training.weights import save_weights;"
        "t = {n: torch.arange(6.).view(2, 3) for n in 'zyxa'};"
        "save_weights(Path(sys.argv[1]), t, {n: {'k': n} for n in ('specification', 'provenance', 'classes', 'input')})"
    )
    for name in ("a", "b"):
        environment = {**os.environ, "PYTHONHASHSEED": {"a": "1", "b": "2"}[name]}
        subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], check=True, env=environment)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    tensors, metadata = load_weights(tmp_path / "a")
    assert sorted(tensors) == ["a", "x", "y", "z"]
    assert tensors["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert metadata["input"] == {"k": "input"}


def test_unreadable_weights_are_named(tmp_path):
    with pytest.raises(UserError, match="missing: the experiment that makes it"):
        load_weights(tmp_path / "none.safetensors")
    save_weights(tmp_path / "w.safetensors", {"a": torch.ones(100)}, {})
    os.truncate(tmp_path / "w.safetensors", 200)
    with pytest.raises(UserError, match=r"w\.safetensors is damaged"):
        load_metadata(tmp_path / "w.safetensors")


def test_the_log_is_what_the_checkpoint_holds_whatever_lies_there(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, tmp_path / "tensorboard", b"", 0)
    log.write(1, {"total": 2.0}, {"clips_per_second": 3.0})
    content = log.flush()
    log.write(2, {"total": 1.0}, {})
    log.flush()
    log.close()
    path.write_bytes(b"\0" * 50)
    resumed = MetricsLog(path, None, content, 1)
    resumed.write(2, {"total": 1.5}, {})
    resumed.flush()
    resumed.close()
    assert path.read_text() == '{"step": 1, "total": 2.0}\n{"step": 2, "total": 1.5}\n'


def test_tensorboard_groups_the_figures(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard", b"", 0)
    log.write(1, {"rate": 0.1, "total": 2.0, "top1": 0.5}, {"clips_per_second": 3.0, "gigabytes": 1.0})
    log.write(1, {"validation_loss": 1.0, "validation_top1": 0.25}, {})
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {
        "train/rate", "train/loss", "train/top1", "speed/clips_per_second", "memory/gigabytes", "validation/loss",
        "validation/top1",
    }  # fmt: skip
    assert events.Scalars("train/loss")[0].value == 2.0


def test_means_survive_a_checkpoint_to_the_bit():
    whole, first = Means(), Means()
    values = [{"total": torch.tensor(v, dtype=torch.float64)} for v in (0.1, 0.7, 1e-9)]
    for value in values:
        whole.add(value)
    first.add(values[0])
    second = Means()
    second.restore(first.state(), torch.device("cpu"))
    for value in values[1:]:
        second.add(value)
    assert second.take() == whole.take()
    assert second.count == 0
