"""What a run that was killed left behind: Snakemake's lock, and stages that still work.

After ``kill -9`` of Snakemake its stages go on alone, and its lock stays. Both are looked for when the next run is
planned, so that its first lines say what to do. Of processes on another machine nothing is known.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

LOCKS = Path(".snakemake") / "locks"


def _is_snakemake(words: Sequence[str]) -> bool:
    return any(Path(word).name == "snakemake" for word in words[:3])


def _stage_and_output(words: Sequence[str]) -> tuple[str, str] | None:
    """The command of this library that a process runs and what it makes; None if it is no such process."""
    if "--output" not in words[:-1]:
        return None
    for place in range(len(words) - 2):
        if tuple(words[place : place + 2]) == ("-m", "pipeline_lib"):
            return words[place + 2], words[words.index("--output") + 1]
    return None


def left_behind(folder: Path) -> str:
    """What an interrupted run left in a folder and what to do, for people; empty if there is nothing.

    Args:
        folder: in which Snakemake runs.
    """
    here = psutil.Process()
    mine = {here.pid, *(process.pid for process in here.parents())}
    running: dict[int, Sequence[str]] = {}
    stages: list[tuple[psutil.Process, str, str]] = []
    for process in psutil.process_iter():
        # Other users' processes do not say where they work.
        with suppress(psutil.Error, OSError):
            if Path(process.cwd()) == folder.resolve():
                words = running[process.pid] = process.cmdline()
                if (found := _stage_and_output(words)) is not None:
                    stages.append((process, *found))
    snakemakes = {pid for pid, words in running.items() if _is_snakemake(words)}
    lines = []
    if any((folder / LOCKS).glob("*")) and not snakemakes - mine:
        lines.append(
            "An earlier Snakemake was ended here before it could take away its lock (kill -9, a power cut). If none "
            "runs in this folder on another machine: snakemake --unlock, then give the same command again. It goes on "
            "where the earlier one stopped: finished files stay, and the stages continue theirs."
        )
    for process, stage, output in stages:
        with suppress(psutil.Error):
            if not snakemakes & {parent.pid for parent in process.parents()}:
                lines.append(
                    f"Process {process.pid} ({stage}) of an earlier run still makes {output}. A job that makes the "
                    "same waits for it, and then finds it finished; nothing is done twice."
                )
    return "\n".join(lines)
