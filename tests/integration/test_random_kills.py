"""A training that is killed again and again at random moments, under Snakemake with retries."""

import random
import re
import signal
import time
from pathlib import Path

import psutil
import pytest
from killed_stages import kill_stages, stage_commands
from small_project import Project, wait_for
from test_kills import TEACHER, drop, text_of, workers

CHECKPOINT_STEPS = 4
LOG = "logs/train/teacher_demo/1-0.log"


def checkpoint_step(project: Project) -> int:
    """The step of the last checkpoint; 0 if there is none."""
    files = (project.folder / TEACHER).parent.glob("checkpoints/step_*.pt")
    return max((int(file.stem.removeprefix("step_")) for file in files), default=0)


def trainings(project: Project) -> list[psutil.Process]:
    return [worker for worker in workers(project, "train") if worker.status() != psutil.STATUS_ZOMBIE]


def kill_after(project: Project, step: int, num_steps: int, pause: float, number: signal.Signals) -> int:
    """Wait for a checkpoint of ``step`` or later, and a moment more, and kill. Returns the step at the kill."""
    wait_for(lambda: checkpoint_step(project) >= step)
    time.sleep(pause)
    (training,) = trainings(project)
    # Held while it is looked at, so that the kill certainly falls into a training that is not finished.
    training.suspend()
    reached = checkpoint_step(project)
    assert step <= reached < num_steps
    assert not (project.folder / TEACHER).exists(), "the kill came too late"
    training.send_signal(number)
    training.resume() if number != signal.SIGKILL else None
    psutil.wait_procs([training], timeout=60)
    assert not training.is_running()
    assert not (project.folder / TEACHER).exists()
    return reached


def resumed_step(project: Project) -> int | None:
    found = re.search(r"going on after step (\d+)", text_of(project.output / LOG))
    return int(found.group(1)) if found else None


@pytest.mark.parametrize(("num_kills", "num_steps"), [(2, 120), pytest.param(20, 240, marks=pytest.mark.soak)])
def test_random_kills_change_no_bit(project: Project, tmp_path: Path, num_kills: int, num_steps: int) -> None:
    longer = f"  demo_flow:\n    <<: *recipe\n    steps: {num_steps}\n    checkpoint_steps: {CHECKPOINT_STEPS}\n"
    project.edit("small.yaml", "  demo_flow: *recipe\n", longer)
    drop(project, TEACHER)
    whole = project.copy(tmp_path / "whole")
    whole.succeed(TEACHER)
    assert resumed_step(whole) is None

    moments = random.Random(num_kills)
    part = (num_steps - 2 * CHECKPOINT_STEPS) // num_kills
    said = tmp_path / "snakemake.txt"
    options = ("--retries", str(num_kills))
    with open(said, "w") as output, project.start(TEACHER, options=options, output=output) as snakemake:
        for kill in range(num_kills):
            number = (signal.SIGKILL, signal.SIGTERM)[kill % 2]
            earliest = kill * part + CHECKPOINT_STEPS
            step = moments.randint(earliest, max(earliest, (kill + 1) * part - CHECKPOINT_STEPS))
            reached = kill_after(project, step, num_steps, moments.uniform(0, 0.1), number)
            # The retry goes on where the killed attempt had come to, neither earlier nor from the start.
            wait_for(lambda: len(trainings(project)) == 1 and resumed_step(project) is not None)
            resumed = resumed_step(project)
            assert resumed is not None and 0 < reached <= resumed < num_steps, (reached, resumed)
        snakemake.wait(timeout=300)
    text = said.read_text()
    assert snakemake.returncode == 0, text[-3000:]
    assert len(re.findall(r"Trying to restart job", text)) == num_kills
    for name in ("weights.safetensors", "metrics.jsonl"):
        killed_file, whole_file = ((each.folder / TEACHER).with_name(name) for each in (project, whole))
        assert killed_file.read_bytes() == whole_file.read_bytes(), name


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
def test_two_hundred_kills_of_all_stages_change_no_byte(project: Project) -> None:
    """Every stage of the demo, the generated videos and a training of two processes, in turn and in four ways."""
    commands = stage_commands(project)
    assert {"generate", "manifest", "extract-frames", "extract-motion", "train", "torchrun", "evaluate", "report"} <= {
        command.name for command in commands
    }
    for command in commands:
        command.learn(project)
    tally = kill_stages(project, commands, 200, seed=0, seconds=4 * 3600)
    print(tally.kills, tally.ways)
    assert tally.count >= 200 and not tally.faults, "\n".join(tally.faults)
