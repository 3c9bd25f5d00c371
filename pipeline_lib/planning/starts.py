"""Starts from imported weights, checked before anything runs: does the file fit, and can it be fetched?

Frames are extracted for days before a training reads its first weights. What is known of them is known before: from the
header of the file, or from the table of public sources where the file is not there yet.
"""

import functools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline_lib.artefacts.records import read_header
from pipeline_lib.configuration.experiments import IMAGENET, IMPORTED, Experiment
from pipeline_lib.configuration.messages import one_message, parsed
from pipeline_lib.configuration.networks import Start, image_misfits, misfits
from pipeline_lib.errors import UserError
from pipeline_lib.models.catalogue import NETWORKS
from pipeline_lib.models.importing.availability import unfetchable
from pipeline_lib.models.importing.sources import SOURCES, Source
from pipeline_lib.planning.run import Run


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a safetensors file: only its header is read, and torch is not needed.

    Raises:
        UserError: the file is damaged.
    """
    return read_header(path)


def check_starts(runs: Iterable[Run]) -> None:
    """Refuse runs whose imported first weights are of a network that theirs cannot start from.

    Raises:
        UserError: one message with every problem: the key, what differs, and what to do.
    """
    problems = [
        f"{_key(run)}: the weights of `{run.first_weights}` do not fit: {'; '.join(found)}. Set `model` and its "
        "options to what the file holds, or start from other weights (docs/models.md)."
        for run in _imported(runs)
        if (found := _misfits(run))
    ]
    if problems:
        raise one_message(problems)


def check_fetchable(runs: Iterable[Run], *, is_dry: bool) -> None:
    """Refuse to begin a run whose imported first weights are absent and cannot be fetched; a dry run only warns.

    Raises:
        UserError: one message with every problem: the key, the file, and the ways out.
    """
    readers: dict[str, list[Run]] = {}
    for run in _imported(runs):
        readers.setdefault(run.first_weights, []).append(run)
    problems = [
        f"{_keys(of_one)}: the weights `{name}` are not there, and {problem}"
        for name, of_one in readers.items()
        if (problem := _unfetchable(of_one[0])) is not None
    ]
    if problems and not is_dry:
        raise one_message(problems)
    for problem in problems:
        _warn(problem)


@functools.cache
def _warn(problem: str) -> None:
    print(f"warning: {problem}", file=sys.stderr)


def _imported(runs: Iterable[Run]) -> Iterator[Run]:
    """The runs that read imported weights themselves, the first of each experiment."""
    seen = set()
    for run in runs:
        if run.experiment in seen or not isinstance(run.entry, Experiment):
            continue
        seen.add(run.experiment)
        if run.first_weights.startswith(IMPORTED) and run.start is None:
            yield run


def _key(run: Run) -> str:
    """The key that says what a run starts from."""
    by_switch = run.trained.start == IMAGENET and run.configuration.start != IMAGENET
    return "start" if by_switch else f"experiments.{run.experiment}.start"


def _keys(runs: list[Run], most: int = 3) -> str:
    """The keys of several runs, the first few by name."""
    keys = list(dict.fromkeys(map(_key, runs)))
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


def _misfits(run: Run) -> list[str]:
    path, source = run.layout.start(run.first_weights), _source(run)
    if path.is_file():
        metadata = read_metadata(path)
        model = metadata.get("model") or metadata.get("specification", {}).get("model")
        modality = metadata.get("input", {}).get("modality", "rgb")
        is_image = bool(metadata.get("two_dimensional"))
    elif source is not None and source.url is not None:
        model, modality = {"name": source.model, "options": source.options}, "rgb"
        is_image = source.two_dimensional
    else:
        # What is still to be made by hand may have other options.
        return []
    # Without a model in the metadata, the training compares the tensors themselves.
    if model is None:
        return []
    if model["name"] not in NETWORKS:
        return [f"it holds {model['name']}, which is no network of this version"]
    try:
        there = _start(model["name"], model["options"] or {}, modality)
    except UserError as error:
        return [f"another version made it ({error}); import it again"]
    here = _start(run.model.name, run.model.options, run.trained.modality)
    return image_misfits(here, there) if is_image else misfits(here, there)


def _start(name: str, options: dict[str, Any], modality: str) -> Start:
    kind = NETWORKS[name]
    return Start(name, parsed(kind.options_model, kind.options | dict(options), "model.options"), modality)


def _source(run: Run) -> Source | None:
    """The public source of a run's first weights, if it is one."""
    return SOURCES.get(run.first_weights.removeprefix(IMPORTED))


def _unfetchable(run: Run) -> str | None:
    """Why a run's first weights, if they are not there, cannot be fetched, and what to do; or None."""
    path, source = run.layout.start(run.first_weights), _source(run)
    if path.is_file():
        return None
    if source is None:
        return f"{path} is to be made: python -m pipeline_lib weights import SOURCE FILE --out {path}"
    problem = unfetchable(run.first_weights.removeprefix(IMPORTED), source, run.layout)
    if problem is None:
        return None
    if run.trained.start == IMAGENET:
        own, random = "--config start=imported/NAME", "--config start=random"
    else:
        own, random = (f"`start: {start}` in the experiment" for start in ("imported/NAME", "random"))
    return problem.with_ways_out(f"name a file of your own, {own}", f"start from random weights, {random}")
