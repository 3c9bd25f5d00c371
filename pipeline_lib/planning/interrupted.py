"""What a run that was killed left behind: Snakemake's lock, and stages that still work.

After ``kill -9`` of Snakemake its stages go on alone, and its lock stays. Both are found through ``/proc`` when the
next run is planned, so that its first lines say what to do. Where there is no ``/proc``, or the processes run on
another machine, nothing is found and nothing is said of them.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LOCKS = Path(".snakemake") / "locks"


@dataclass(frozen=True)
class Process:
    """A running process: its number, its parent's, its folder and its words."""

    pid: int
    parent: int
    folder: Path
    words: Sequence[str]

    @property
    def is_snakemake(self) -> bool:
        """Whether it is Snakemake itself."""
        return any(Path(word).name == "snakemake" for word in self.words[:3])

    @property
    def stage(self) -> str | None:
        """The command that it runs, if it is one of this library's with an output."""
        for place in range(len(self.words) - 2):
            if tuple(self.words[place : place + 2]) == ("-m", "pipeline_lib") and "--output" in self.words:
                return self.words[place + 2]
        return None

    @property
    def output(self) -> str:
        """What it makes."""
        return self.words[self.words.index("--output") + 1] if "--output" in self.words[:-1] else ""


def processes(folder: Path) -> Iterator[Process]:
    """This user's processes that work in a folder."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            if (entry / "cwd").readlink() != folder:
                continue
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
            # The name, in brackets, may hold blanks and brackets itself.
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            yield Process(int(entry.name), parent, folder, words)


def left_behind(folder: Path) -> str:
    """What an interrupted run left in a folder and what to do, for people; empty if there is nothing.

    Args:
        folder: in which Snakemake runs.
    """
    found = list(processes(folder.resolve()))
    by_number = {one.pid: one for one in found}
    mine = {os.getpid()}
    parent = by_number.get(os.getpid())
    while parent is not None and parent.parent not in mine:
        mine.add(parent.parent)
        parent = by_number.get(parent.parent)
    others = [one for one in found if one.is_snakemake and one.pid not in mine]
    orphans = [one for one in found if one.stage and not _has_snakemake_above(one, by_number)]
    lines = []
    if any((folder / LOCKS).glob("*")) and not others:
        lines.append(
            "An earlier Snakemake was ended here before it could take away its lock (kill -9, a power cut). If none "
            "runs in this folder on another machine: snakemake --unlock, then give the same command again. It goes on "
            "where the earlier one stopped: finished files stay, and the stages continue theirs."
        )
    lines += [
        f"Process {one.pid} ({one.stage}) of an earlier run still makes {one.output}. A job that makes the same waits "
        "for it, and then finds it finished; nothing is done twice."
        for one in orphans
    ]
    return "\n".join(lines)


def _has_snakemake_above(process: Process, by_number: dict[int, Process]) -> bool:
    """Whether a running Snakemake started a process, directly or through a shell."""
    above = by_number.get(process.parent)
    while above is not None:
        if above.is_snakemake:
            return True
        above = by_number.get(above.parent)
    return False
