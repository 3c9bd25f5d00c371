"""Checks that everything below an output root is as it was written.

Two ways lead to that. A stage writes the SHA-256 of its files to its sidecar, which covers every byte. Without a
sidecar (a copy may have left it out) an artefact's own checksums cover all that a later stage reads of it.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from pipeline_lib.artefacts.digest import file_digest
from pipeline_lib.artefacts.layout import (
    GENERATED,
    MANIFEST,
    METRICS,
    SCORES,
    SPECIFICATION,
    SUMMARY,
    TRAINING_LOG,
    WEIGHTS,
    Layout,
)
from pipeline_lib.artefacts.progress import Progress
from pipeline_lib.artefacts.records import check_beside, check_weights_file
from pipeline_lib.artefacts.sealing import DamageError, read_sealed_json, remaking
from pipeline_lib.artefacts.tables import read_table
from pipeline_lib.errors import UserError
from pipeline_lib.media.shards import Shard
from pipeline_lib.media.strengths import read_strength_table
from pipeline_lib.reporting.costs import COSTS_SUFFIX
from pipeline_lib.reporting.page_file import check_page
from pipeline_lib.tasks.files import check_predictions

_SIDECAR = ".run.json"
_MADE_TOGETHER = {SUMMARY: [MANIFEST], SCORES: [METRICS], WEIGHTS: [TRAINING_LOG, SPECIFICATION]}
"""What belongs beside an artefact that has no sidecar to tell it, by the artefact's name."""


@dataclass(frozen=True)
class Finding:
    """A damaged or missing artefact: its path, what is wrong, and the command that makes it again, if a rule does."""

    path: Path
    what: str
    command: str | None


@dataclass
class Verification:
    """What was found.

    Attributes:
        num_files: checked.
        num_bytes: in these.
        damaged: those that are not as they were written.
        missing: those that other artefacts say should be there.
        unreadable: those that the disk did not give, with its message.
        unknown: files that nothing says anything about.
    """

    num_files: int = 0
    num_bytes: int = 0
    damaged: list[Finding] = field(default_factory=list)
    missing: list[Finding] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    unknown: list[Path] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged, missing or unreadable."""
        return not (self.damaged or self.missing or self.unreadable)

    def commands(self) -> list[str]:
        """The commands that make all findings again: one of Snakemake for all that rules make."""
        found = dict.fromkeys(one.command for one in (*self.damaged, *self.missing) if one.command is not None)
        targets = " ".join(command.rpartition(" -- ")[2] for command in found)
        return [f"snakemake --cores all --forcerun {targets} -- {targets}"] if targets else []

    def lines(self) -> list[str]:
        """The findings as text."""
        lines = []
        for title, findings in (("damaged", self.damaged), ("missing", self.missing)):
            if findings:
                lines.append(f"{title}:")
                lines += [f"  {one.path}: {one.what}" for one in findings]
        if self.unreadable:
            lines += ["not read, because the disk did not answer:", *(f"  {text}" for text in self.unreadable)]
        by_hand = [one.path for one in (*self.damaged, *self.missing) if one.command is None]
        if by_hand:
            lines.append("delete these, and give the command that made them again where you need them:")
            lines += [f"  {path}" for path in by_hand]
        if self.commands():
            lines += ["make again (with the --configfile of its run):", *(f"  {text}" for text in self.commands())]
        lines.append(
            f"{self.num_files} files ({self.num_bytes / 1e9:.2f} GB) checked: "
            f"{len(self.damaged)} damaged, {len(self.missing)} missing"
            + (f", {len(self.unreadable)} not read" if self.unreadable else "")
        )
        if self.unknown:
            names = ", ".join(str(path) for path in self.unknown[:3]) + (" …" if len(self.unknown) > 3 else "")
            lines.append(f"{len(self.unknown)} files have no checksum, and are not checked: {names}")
        return lines


def root_of(folder: Path) -> Path:
    """The output root that a folder is or lies below."""
    parts = folder.absolute().parts
    inside = [position for position, name in enumerate(parts) if name in Layout.rooms() and position]
    return (
        Path(*parts[: inside[-1]])
        if inside and not any((folder / room).is_dir() for room in Layout.rooms())
        else folder
    )


def _checker(root: Path, path: Path) -> Callable[[Path], object] | None:
    """What reads a file as later stages do; None if nothing of it can be checked without a sidecar."""
    parts = path.absolute().relative_to(root.absolute()).parts
    room, name = parts[0], path.name
    if name.endswith(_SIDECAR):
        return read_sealed_json
    if path.suffix == ".pt" and "checkpoints" in parts[-2]:
        return _check_checkpoint
    if path.suffix == ".h5":
        return check_predictions if room == "evaluations" else lambda place: Shard(place).verify()
    if path.suffix == ".parquet":
        return read_strength_table if room == "motion" else read_table
    if name in (TRAINING_LOG, SPECIFICATION) and room in ("experiments", "trials"):
        weights = path.with_name(WEIGHTS)
        return (lambda place: check_beside(weights, place, place.read_bytes())) if weights.is_file() else None
    if path.suffix == ".json":
        return read_sealed_json if room in ("media", "manifests", "evaluations", "downloads") else None
    return {".safetensors": check_weights_file, ".html": check_page}.get(path.suffix)


def _check_checkpoint(path: Path) -> None:
    from pipeline_lib.training.checkpoints import Checkpoints

    if Checkpoints(path.parent, "", 1).read(path) is None:
        raise DamageError(path, "it does not agree with its checksum; a training goes on at the one before it")


def check_file(root: Path, path: Path, expected: str | None) -> tuple[str, str] | None:
    """Check one file.

    Args:
        root: of the output.
        path: the file.
        expected: SHA-256 of the file as it was written, if it is known.

    Returns:
        None if it is as it was written; else ``damaged``, ``unreadable`` or ``unknown``, and the reason.
    """
    checker = _checker(root, path)
    try:
        if expected is not None and file_digest(path) == expected:
            return None
        if checker is None and expected is None:
            return "unknown", ""
        if checker is not None:
            checker(path)
    except DamageError as error:
        return "damaged", error.what
    except (UserError, OSError) as error:
        return "unreadable", str(error)
    if expected is None:
        return None
    return "damaged", "its bytes are not those that were written (its sidecar has their digest)"


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder, sorted; no logs, events or costs, nothing hidden (locks, unfinished parts)."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != "." and name not in ("logs", "tensorboard"))
        # A page of costs is for people and from the sidecars; no artefact.
        yield from (Path(place) / name for name in sorted(names) if name[0] != "." and not name.endswith(COSTS_SUFFIX))


def _expected(paths: Sequence[Path]) -> tuple[dict[Path, str], dict[Path, str]]:
    """SHA-256 by path, as sidecars and generated data sets tell it; and what else should be there, with the reason."""
    digests: dict[Path, str] = {}
    companions: dict[Path, str] = {}
    for path in paths:
        is_sidecar = path.name.endswith(_SIDECAR)
        if is_sidecar or path.name == GENERATED:
            try:
                named = read_sealed_json(path).get("files", {})
            except UserError:
                continue
            # What a data set says of its videos is kept where its sidecar is left out.
            for name, value in named.items():
                digests.setdefault(path.parent / name, str(value))
        elif path.name in _MADE_TOGETHER and "downloads" not in path.parts[-3:-1]:
            weights_only = "imported" in path.parts
            for name in [] if weights_only else _MADE_TOGETHER[path.name]:
                companions[path.with_name(name)] = f"it belongs to {path.name}"
    for path in digests:
        companions.setdefault(path, "a stage has written it")
    return digests, companions


def verify(folder: Path, num_workers: int) -> Verification:
    """Check all artefacts below a folder, several files at a time; the memory does not grow with their number or size.

    Args:
        folder: an output root, or a folder below one.
        num_workers: processes.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; give the output root, or a folder below it.")
    root = root_of(folder)
    paths = [path for path in _files(folder) if _is_artefact(root, path)]
    digests, companions = _expected(paths)
    found = Verification()
    with Progress("verify", len(paths), "files") as progress:
        for path, result in _results(root, paths, digests, num_workers):
            progress.advance()
            if result is None or result[0] == "damaged":
                found.num_files += 1
                found.num_bytes += path.stat().st_size if path.exists() else 0
            if result is None:
                continue
            kind, what = result
            if kind == "damaged":
                found.damaged.append(Finding(path, what, remaking(path)))
            elif kind == "unreadable":
                found.unreadable.append(what)
            else:
                found.unknown.append(path)
    for path, what in companions.items():
        if not path.exists():
            found.missing.append(Finding(path, what, remaking(path)))
    for findings in (found.damaged, found.missing):
        findings.sort(key=lambda one: one.path)
    found.unknown.sort()
    return found


def _is_artefact(root: Path, path: Path) -> bool:
    """Whether a file is of the kinds that stages write, and not, say, a public checkpoint as its publisher wrote it."""
    parts = path.absolute().relative_to(root.absolute()).parts
    if parts[0] not in (*Layout.rooms(), "exports") or parts[:2] == ("imported", "downloads"):
        return False
    # The log in the folder of checkpoints is written again from the last of them.
    return not (path.parent.name == "checkpoints" and path.suffix != ".pt")


def _results(
    root: Path, paths: Sequence[Path], digests: Mapping[Path, str], num_workers: int
) -> Iterator[tuple[Path, tuple[str, str] | None]]:
    """Check files in processes of their own: a library that reads damaged bytes may end its process."""
    # The largest first, so that the last process does not begin with a file of gigabytes.
    waiting = sorted(paths, key=lambda path: (-path.stat().st_size, path))
    context = get_context("forkserver")
    done: set[Path] = set()
    try:
        with ProcessPoolExecutor(max(1, min(num_workers, len(waiting))), mp_context=context) as pool:
            futures = {pool.submit(check_file, root, path, digests.get(path)): path for path in waiting}
            for future in as_completed(futures):
                result = future.result()
                done.add(futures[future])
                yield futures[future], result
    except BrokenProcessPool:
        for path in waiting:
            if path in done:
                continue
            try:
                with ProcessPoolExecutor(1, mp_context=context) as pool:
                    result = pool.submit(check_file, root, path, digests.get(path)).result()
            except BrokenProcessPool:
                result = "damaged", "a process that read it ended"
            yield path, result
