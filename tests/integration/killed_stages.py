"""Every stage of a finished project as a command, killed at random moments until it ends with the same bytes."""

import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from small_project import Project

WAYS = ("SIGKILL", "SIGTERM", "SIGINT", "STOP/CONT")
# What holds times, hosts or progress, and what the bytes of an artefact do not depend on.
_PASSING = (".run.json", ".lock", ".partial", ".sqlite", "tensorboard", "outcomes.jsonl", ".log")


@dataclass
class Tally:
    """How many kills there were, of which stages and in which ways, and what differed after them."""

    kills: Counter[str] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(self.kills.values())


@dataclass
class StageCommand:
    """One stage of a project.

    Attributes:
        name: of the stage.
        words: the command line.
        output: the file or folder that it makes.
        seconds: how long it takes without disturbance.
        content: what it makes: bytes by path below ``output``.
    """

    name: str
    words: list[str]
    output: Path
    seconds: float = 0.0
    content: dict[str, bytes] = field(default_factory=dict)

    def start(self, project: Project) -> "subprocess.Popen[bytes]":
        environment = os.environ | {"PYTHONPATH": str(project.folder), "OMP_NUM_THREADS": "1"}
        log = open(project.folder / "killed.log", "wb")
        return subprocess.Popen(
            self.words, cwd=project.folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )

    def clear(self) -> None:
        """Remove what the stage makes, and what it has left of unfinished work."""
        for leftover in self.output.parent.glob(f".{self.output.name}.*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        if self.output.is_dir():
            shutil.rmtree(self.output)
        else:
            self.output.unlink(missing_ok=True)

    def made(self) -> dict[str, bytes]:
        """What is there, by path."""
        files = sorted(self.output.rglob("*")) if self.output.is_dir() else [self.output]
        return {
            str(file.relative_to(self.output)): file.read_bytes()
            for file in files
            if file.is_file() and not any(part in str(file) for part in _PASSING)
        }

    def learn(self, project: Project) -> None:
        """Run it once without disturbance."""
        self.clear()
        begin = time.monotonic()
        process = self.start(project)
        assert process.wait() == 0, (project.folder / "killed.log").read_text()[-3000:]
        self.seconds, self.content = time.monotonic() - begin, self.made()
        assert self.content


def stage_commands(project: Project) -> list[StageCommand]:
    """One command of each stage of the finished demo, as Snakemake runs it, and a training of two processes."""
    text = project.plan("demo", options=("--forceall", "--printshellcmds")).text
    found: dict[str, StageCommand] = {}
    for line in text.splitlines():
        _, mark, rest = line.partition("exec python -m pipeline_lib ")
        if not mark:
            continue
        words = shlex.split(rest.split(" &> ")[0])
        output = project.folder / words[words.index("--output") + 1]
        parts = output.relative_to(project.output).parts
        # Before the manifest is there, Snakemake names the manifest in the place of the inputs.
        if words[0] == "extract-motion":
            words[words.index("--frames") + 1] = str(project.output / "frames" / Path(*parts[1:3], parts[-1]))
        if words[0] == "extract-frames":
            shard_list = project.output / "manifests" / parts[1] / "shards" / f"{output.stem}.json"
            words[words.index("--videos") + 1] = str(shard_list)
        found.setdefault(words[0], StageCommand(words[0], [sys.executable, "-m", "pipeline_lib", *words], output))
    training = found["train"]
    ranks = project.output / "experiments" / "teacher_demo" / "9-0"
    words = [str(ranks) if word.endswith(str(Path(*training.output.parts[-2:]))) else word for word in training.words]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    found["torchrun"] = StageCommand("torchrun", [*launcher, *words[1:]], ranks)
    return list(found.values())


def _disturb(process: "subprocess.Popen[bytes]", way: str, pause: float) -> None:
    """Do it to the stage and to all that it has started, or to the stage alone."""
    group = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    if way == "STOP/CONT":
        for member in group:
            member.suspend()
        time.sleep(pause)
        for member in group:
            member.resume()
        return
    os.killpg(process.pid, getattr(signal, way))


def kill_stages(project: Project, commands: list[StageCommand], num_kills: int, seed: int, seconds: float) -> Tally:
    """Kill the stages in turn, each several times before it may end; compare what it has made then.

    Args:
        project: finished.
        commands: that have been learned.
        num_kills: how many kills in all.
        seed: of the moments and ways.
        seconds: stop earlier after so long.
    """
    draw, tally, end = random.Random(seed), Tally(), time.monotonic() + seconds
    turn = 0
    while tally.count < num_kills and time.monotonic() < end:
        command = commands[turn % len(commands)]
        turn += 1
        command.clear()
        for _ in range(draw.randint(1, 4)):
            process = command.start(project)
            try:
                process.wait(draw.uniform(0.05, command.seconds))
            except subprocess.TimeoutExpired:
                way = WAYS[tally.count % len(WAYS)]
                try:
                    _disturb(process, way, draw.uniform(0, 0.5))
                except (psutil.NoSuchProcess, ProcessLookupError):
                    continue
                finally:
                    tally.kills[command.name] += 1
                    tally.ways[way] += 1
                if way == "STOP/CONT":
                    process.wait()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    tally.faults.append(f"{command.name}: did not end within 30 s of {way}")
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        status = command.start(project).wait()
        if status != 0:
            log = (project.folder / "killed.log").read_text(errors="replace")
            tally.faults.append(f"{command.name}: status {status}: {log[-500:]}")
        elif (made := command.made()) != command.content:
            names = [
                name for name in made.keys() | command.content.keys() if made.get(name) != command.content.get(name)
            ]
            tally.faults.append(f"{command.name}: {names} differ")
    return tally
