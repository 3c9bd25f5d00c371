"""The frame of every stage: one writer, nothing done twice, a record in the artefact, a sidecar beside it."""

import json
import multiprocessing
import os
import socket
from pathlib import Path

import pytest
import torch

from pipeline_lib.artefacts.atomic import write_bytes, write_json
from pipeline_lib.artefacts.digest import file_digest
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.artefacts.sealing import sealed, write_sealed_json
from pipeline_lib.artefacts.stage import Stage, read_sidecar, sidecar_path

MODULES = ["pipeline_lib.artefacts.digest"]


def _make(
    output: Path, rate: int = 1, inputs: dict[Path | str, str] | None = None, others: tuple[Path, ...] = ()
) -> bool:
    """Run a stage; True if it had to make the artefact."""
    with Stage("test", MODULES, output, others) as stage:
        if stage.is_finished({"rate": rate}, inputs or {}, {}):
            return False
        for other in others:
            other.write_text("beside")
        write_sealed_json(output, {"provenance": stage.record})
        stage.finish({"videos": 3})
    return True


def test_an_artefact_is_made_once_for_each_origin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, other = tmp_path / "a.json", tmp_path / "b"
    assert _make(output, others=(other,))
    assert not _make(output, others=(other,))
    assert f"{output} is finished" in capsys.readouterr().err
    assert _make(output, rate=2, others=(other,))
    assert _make(output, rate=2, others=(other,), inputs={"x": "1"})
    other.unlink()
    assert _make(output, rate=2, others=(other,), inputs={"x": "1"})
    output.write_text("{")
    assert _make(output, rate=2, others=(other,), inputs={"x": "1"})


def test_host_and_times_are_in_the_sidecar_alone(tmp_path: Path) -> None:
    _make(tmp_path / "a.json")
    told = json.loads(sidecar_path(tmp_path / "a.json").read_text())
    assert told == sealed(read_sidecar(tmp_path / "a.json"))
    assert told["files"] == {"a.json": file_digest(tmp_path / "a.json")}
    assert told["host"] == socket.gethostname() and told["figures"] == {"videos": 3}
    assert told["seconds"] >= 0 and told["started"] <= told["finished"]
    assert ("gpu" in told) == torch.cuda.is_available()
    assert socket.gethostname() not in (tmp_path / "a.json").read_text()
    assert read_sidecar(tmp_path / "absent") == {}


def test_inputs_are_named_by_their_place_below_the_root_on_every_machine(tmp_path: Path) -> None:
    records = []
    for root in (tmp_path / "one/frames/output", tmp_path / "two"):
        layout = Layout(root)
        output, frames = layout.motion("tiny", "small", "tvl1", "000"), layout.frames("tiny", "small", "000")
        with Stage("test", MODULES, output) as stage:
            outside = {tmp_path / "list.csv": "2", Layout(tmp_path / "three").weights("a", "1", "0"): "3"}
            stage.describe({}, {frames: "1"} | outside, {}, {layout.summary("tiny"): "4"})
            records.append(stage.record)
            write_bytes(output, b"")
            stage.finish()
        assert read_sidecar(output)["outside"] == {
            "list.csv": str(tmp_path / "list.csv"),
            "experiments/a/1-0/weights.safetensors": str(tmp_path / "three/experiments/a/1-0/weights.safetensors"),
        }
    assert records[0] == records[1]
    assert records[0]["inputs"] == {
        "frames/tiny/small/000.h5": "1", "list.csv": "2", "experiments/a/1-0/weights.safetensors": "3",
    }  # fmt: skip
    assert records[0]["beside"] == {"manifests/tiny/summary.json": "4"}


def test_the_root_is_found_above_every_artefact(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    # A data set or an experiment may be called as a folder of the root is.
    for name in ("tiny", "frames", "media", "report", "experiments"):
        for path in (
            layout.media_list(name, "train"), layout.summary(name), layout.manifest(name),
            layout.shard_list(name, "000"), layout.frames(name, "small", "000"),
            layout.motion(name, "small", "tvl1", "000"), layout.strength(name, "small", "tvl1", "000"),
            layout.weights(name, "1", "0"), layout.metrics(name, "1", "0", "p"),
            layout.retrieval(name, "1", "0", "p"), layout.report(name), layout.imported(name),
        ):  # fmt: skip
            found = Layout.above(path)
            assert found is not None and found.root == tmp_path, path
            key = layout.key(path)
            assert key is not None and layout.owns(key) and layout.root / key == path
    assert Layout.above(tmp_path / "shard.h5") is None
    assert not layout.owns("train.csv")


def _hold(output: Path, started: object, end: object) -> None:
    with Stage("test", MODULES, output):
        started.set()  # type: ignore[attr-defined]
        end.wait(60)  # type: ignore[attr-defined]
        write_json(output, {})


def test_a_second_process_waits_for_the_first(tmp_path: Path) -> None:
    output = tmp_path / "a.json"
    context = multiprocessing.get_context("fork")
    started, end = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(output, started, end))
    other.start()
    assert started.wait(60)
    # A further process of a distributed training does not wait: its first one holds the lock.
    with Stage("test", MODULES, output, exclusive=False):
        assert not output.exists()
    end.set()
    with Stage("test", MODULES, output):
        assert output.exists()
    other.join(60)
    assert other.exitcode == 0 and os.getpid() != other.pid
