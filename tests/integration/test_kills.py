"""Killed in the middle and started again: completes, does less work, and ends with the same bytes."""

import json
import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from small_project import Project, wait_for

TEACHER = "output/experiments/teacher_demo/1-0/weights.safetensors"
FRAMES = "output/frames/generated/short64_native/000.h5"
MOTION = "output/motion/generated/short64_native/tvl1_small/000.h5"
COMMANDS = {FRAMES: "extract-frames", MOTION: "extract-motion", TEACHER: "train"}


def workers(project: Project, command: str) -> list[psutil.Process]:
    """The running processes of one stage command in the project's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
            inside = process.cwd() == str(project.folder)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        if inside and "pipeline_lib" in line and command in line:
            found.append(process)
    return found


def text_of(path: Path) -> str:
    """A log's text so far; Snakemake removes an earlier run's log before the job writes its own."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def journal_lines(project: Project, shard: str) -> int:
    path = project.folder / Path(shard).parent / f".{Path(shard).name}.part" / "journal"
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def begun(project: Project, artefact: str) -> bool:
    """Whether the stage that makes an artefact is in its middle."""
    if artefact == TEACHER:
        return bool(list((project.folder / TEACHER).parent.glob("checkpoints/**/*.pt")))
    return journal_lines(project, artefact) >= 1


def drop(project: Project, artefact: str) -> bytes:
    """Remove a finished artefact; returns what it was."""
    path = project.folder / artefact
    content = path.read_bytes()
    path.unlink()
    if artefact == TEACHER:
        for leftover in ("checkpoints", "tensorboard"):
            shutil.rmtree(path.parent / leftover, ignore_errors=True)
        for leftover in ("metrics.jsonl", "specification.json"):
            (path.parent / leftover).unlink()
    return content


def did_less(project: Project, artefact: str) -> bool:
    """Whether the second run took over work of the first."""
    if artefact == TEACHER:
        log = (project.output / "logs/train/teacher_demo/1-0.log").read_text()
        found = re.search(r"going on after step (\d+)", log)
        return found is not None and 0 < int(found.group(1)) < 10
    sidecar = json.loads((project.folder / f"{artefact}.run.json").read_text())
    return int(sidecar["figures"]["videos_resumed"]) > 0


@pytest.mark.parametrize("artefact", [FRAMES, MOTION, TEACHER])
def test_a_killed_stage_goes_on(project: Project, artefact: str) -> None:
    original = drop(project, artefact)
    with project.start(artefact) as snakemake:
        wait_for(lambda: begun(project, artefact))
        for worker in workers(project, COMMANDS[artefact]):
            worker.kill()
        snakemake.communicate(timeout=120)
    assert snakemake.returncode != 0, "the kill came too late"
    assert not (project.folder / artefact).exists()
    project.succeed(artefact)
    assert did_less(project, artefact)
    assert (project.folder / artefact).read_bytes() == original


@pytest.mark.parametrize("artefact", [FRAMES, MOTION, TEACHER])
def test_a_killed_snakemake_leaves_an_orphan_that_spoils_nothing(project: Project, artefact: str) -> None:
    original = drop(project, artefact)
    with project.start(artefact) as snakemake:
        wait_for(lambda: begun(project, artefact))
        # Held in the middle, so that the orphan certainly still runs when the second run starts.
        orphans = workers(project, COMMANDS[artefact])
        for orphan in orphans:
            orphan.suspend()
        assert orphans and not (project.folder / artefact).exists(), "the kill came too late"
        os.kill(snakemake.pid, signal.SIGKILL)
        snakemake.communicate()
    if artefact == FRAMES:
        # Snakemake's lock is the same whatever was made: looked at once, because each start takes seconds.
        refused = project.run(artefact)
        assert refused.status != 0
        assert "unlock" in refused.text
        command = project.command()
        subprocess.run([*command[:-1], "--unlock"], cwd=project.folder, check=True, capture_output=True)
    else:
        shutil.rmtree(project.folder / ".snakemake" / "locks")
    log = {
        FRAMES: "frames/generated/short64_native/000.log",
        MOTION: "motion/generated/short64_native/tvl1_small/000.log",
        TEACHER: "train/teacher_demo/1-0.log",
    }[artefact]
    with project.start(artefact) as second:
        wait_for(lambda: "waiting for process" in text_of(project.output / "logs" / log))
        assert not (project.folder / artefact).exists()
        for orphan in orphans:
            with suppress(psutil.NoSuchProcess):
                orphan.resume()
        text, _ = second.communicate(timeout=300)
    assert second.returncode == 0, text[-3000:]
    assert (project.folder / artefact).read_bytes() == original
    psutil.wait_procs(orphans, timeout=60)
    assert (project.folder / artefact).read_bytes() == original
    if artefact == FRAMES:
        assert "Nothing to be done" in project.succeed(artefact).text


def test_an_interrupt_that_reaches_snakemake_alone_ends_its_training(project: Project) -> None:
    longer = "  demo_flow:\n    <<: *recipe\n    steps: 5000\n    checkpoint_steps: 2\n"
    project.edit("small.yaml", "  demo_flow: *recipe\n", longer)
    drop(project, TEACHER)
    with project.start(TEACHER) as snakemake:
        wait_for(lambda: begun(project, TEACHER))
        os.kill(snakemake.pid, signal.SIGINT)
        snakemake.communicate(timeout=30)
    assert snakemake.returncode != 0 and not workers(project, "train")
    # It is asked to stop and saves its state; a second run goes on from there.
    assert "the same command goes on from there" in text_of(project.output / "logs/train/teacher_demo/1-0.log")
