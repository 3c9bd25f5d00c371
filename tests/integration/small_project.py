"""A small copy of the project that Snakemake runs for real."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SOURCES = ("Snakefile", "config.yaml", "rules", "workflow", "profiles", "envs", "pipeline_lib", "constraints.txt")

# The demo in small: the same experiments, a network of the least width, a few steps.
SMALL = """
datasets:
  generated:
    format: table
    generated: null
    annotations: {train: data/train.csv, validation: data/validation.csv}
    videos: [data]
    num_shards: 2
  generated_transfer:
    generated: {family: trajectories, num_train: 12, num_validation: 6, num_frames: 10, short_side: 48, seed: 2}
    num_shards: 2
frame_formats:
  short64_native: {short_side: 48, jpeg_quality: 90}
recipes:
  demo_rgb: &recipe
    schedule: {name: step, base_rate: 0.01, milestones: [8], factor: 0.1}
    steps: 10
    global_batch: 4
    reestimate_batch_norm: 2
    sampling: {num_frames: 8, crop: 32, short_side: [40, 48]}
    checkpoint_steps: 2
  demo_flow: *recipe
  demo_finetune: *recipe
experiments:
  teacher_demo: {model: {options: {depth_multiplier: 0.0625}}}
  baseline_demo: {model: {options: {depth_multiplier: 0.0625}}}
  d3d_demo: {model: {options: {depth_multiplier: 0.0625}}}
  d3d_demo_transfer: {model: {options: {depth_multiplier: 0.0625}}}
"""


@dataclass
class Outcome:
    """What a run of Snakemake printed, and how it ended."""

    status: int
    text: str

    @property
    def jobs(self) -> Counter[str]:
        """How often each rule ran, or would run."""
        return Counter(re.findall(r"^(?:local)?(?:rule|checkpoint) (\w+):$", self.text, re.MULTILINE))

    @property
    def outputs(self) -> set[str]:
        """The experiments, shards and evaluations that were made, or would be."""
        return {
            path
            for line in re.findall(r"^    output: (.*)$", self.text, re.MULTILINE)
            for path in line.removesuffix(" (update)").split(", ")
        }


class Run(subprocess.Popen[str]):
    """A running Snakemake that a failing test does not wait for."""

    def __exit__(self, *raised: object) -> None:
        if raised[0] is not None:
            self.kill()
        super().__exit__(*raised)  # type: ignore[arg-type]


class Project:
    """A folder with the project's sources, its data and its output."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def output(self) -> Path:
        return self.folder / "output"

    def command(self, *arguments: str) -> list[str]:
        overlay = ["--configfile", "small.yaml"] if (self.folder / "small.yaml").exists() else []
        return [sys.executable, "-m", "snakemake", "--cores", "2", *overlay, "--", *arguments]

    def start(self, *arguments: str, options: tuple[str, ...] = (), output: IO[str] | int = subprocess.PIPE) -> Run:
        """Start Snakemake. A pipe that is not read while it runs holds it up after 64 KiB: a long run needs a file."""
        command = self.command(*arguments)
        command[3:3] = options
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return Run(
            command,
            cwd=self.folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            # As a terminal starts it: a shell's background jobs ignore interrupts, and so would what they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *arguments: str, options: tuple[str, ...] = (), seconds: float = 600) -> Outcome:
        with self.start(*arguments, options=options) as process:
            text, _ = process.communicate(timeout=seconds)
        return Outcome(process.returncode, text)

    def succeed(self, *arguments: str, options: tuple[str, ...] = (), seconds: float = 600) -> Outcome:
        outcome = self.run(*arguments, options=options, seconds=seconds)
        assert outcome.status == 0, outcome.text[-4000:]
        return outcome

    def plan(self, *arguments: str, options: tuple[str, ...] = ()) -> Outcome:
        """A dry run: what would be made."""
        return self.succeed(*arguments, options=("--dry-run", *options))

    def copy(self, folder: Path) -> "Project":
        """The whole project with output and Snakemake's records, times kept."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.folder / path
        text = file.read_text(encoding="utf-8")
        assert old in text, f"{path} has no {old!r}"
        file.write_text(text.replace(old, new, 1), encoding="utf-8")


def copy_sources(repository: Path, folder: Path) -> Project:
    folder.mkdir(parents=True)
    for name in SOURCES:
        source = repository / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)
    return Project(folder)


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Poll quickly until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)
