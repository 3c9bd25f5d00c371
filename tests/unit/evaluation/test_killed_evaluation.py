"""A killed evaluation command goes on where it stopped and ends with the same bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from small_tree import make_run, make_tree, training_specification

from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.specification import EvaluationSpecification


def command(layout: Layout, output: Path) -> list[str]:
    specification = EvaluationSpecification(
        training=training_specification("baseline"), protocol_name="p", protocol=Protocol(num_clips=8, num_crops=3)
    )
    words = ["evaluate", "--specification", specification.model_dump_json(), "--root", str(layout.root)]
    return [sys.executable, "-m", "pipeline_lib", *words, "--output", str(output), "--loader-workers", "0"]


def journal_lines(output: Path) -> int:
    path = output / ".scores.h5.part" / "journal"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def test_kill_in_the_middle(tmp_path: Path) -> None:
    layout = make_tree(tmp_path / "output", num_videos=60)
    make_run(layout, training_specification("baseline"))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = subprocess.Popen(command(layout, killed), env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while journal_lines(killed) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the evaluation was over before the kill"
    finished = journal_lines(killed)
    assert 2 <= finished < 30
    assert not (killed / "scores.h5").exists()

    for output in (killed, whole):
        subprocess.run(command(layout, output), env=environment, check=True, capture_output=True)
    assert (killed / "scores.h5").read_bytes() == (whole / "scores.h5").read_bytes()
    assert (killed / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()
    figures = json.loads((killed / "scores.h5.run.json").read_text())["figures"]
    assert figures == {"videos": 30, "resumed_videos": finished}
    assert not (killed / ".scores.h5.part").exists()
