"""Ensembles from score files alone: the mean of the members' softmax scores (D3D, section 5.3).

The result is a score file of the same format: its logits are the logarithms of the averaged probabilities, so that
their softmax is that average. If all members hold the same clips, it keeps them, and Clip@1 of the ensemble is defined.
If the members were evaluated on different clips (networks of different clip lengths), it holds one row per video, with
start −1. A video that one of the members lacks is left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline_lib.artefacts.records import Record
from pipeline_lib.errors import UserError
from pipeline_lib.tasks.classification.metrics import log_softmax, mean_probabilities
from pipeline_lib.tasks.classification.scores import (
    Clips,
    ScoreFile,
    Scores,
    of_common_videos,
    pieces,
    same_clips,
    write_scores,
)


def _mean_of_logs(logs: Sequence[np.ndarray]) -> np.ndarray:
    """log(mean(exp(x))) over the members, without underflow, float32."""
    stacked = np.stack(logs)
    peak = stacked.max(axis=0)
    result: np.ndarray = (peak + np.log(np.exp(stacked - peak).mean(axis=0))).astype(np.float32)
    return result


def _check_members(members: Mapping[str, Scores]) -> None:
    names = list(members)
    if len(names) < 2:
        raise UserError(f"an ensemble needs at least two members, not {len(names)} ({', '.join(names)}).")
    first = members[names[0]]
    for name in names[1:]:
        other = members[name]
        if set(other.classes) != set(first.classes):
            missing = sorted(set(first.classes) ^ set(other.classes))
            raise UserError(
                f"the ensemble's members {names[0]} and {name} have different classes, for example {missing[0]!r}."
            )


def combine(files: Mapping[str, Path], output: Path, record: Record) -> None:
    """Write the mean of the members' softmax scores as a score file, some thousand clips at a time.

    Args:
        files: name → score file, at least two. A file may occur twice under two names; it then counts twice.
        output: the score file.
        record: of the result.

    Raises:
        UserError: members were made from different manifests, have no video in common, or have other classes.
    """
    members: dict[str, Scores] = {name: ScoreFile(path) for name, path in files.items()}
    _check_members(members)
    members = dict(zip(members, of_common_videos(list(members.values()), list(members)), strict=True))
    first, *others = members.values()
    # Each member's columns in the order of the first one's classes.
    orders = [[scores.classes.index(label) for label in first.classes] for scores in members.values()]

    def of_clips() -> Iterator[Clips]:
        for parts in zip(*(pieces(scores) for scores in members.values()), strict=True):
            logs = [log_softmax(part.logits)[:, order] for part, order in zip(parts, orders, strict=True)]
            yield parts[0]._replace(logits=_mean_of_logs(logs))

    def of_videos() -> Iterator[Clips]:
        tiny = np.finfo(np.float64).tiny
        # The members have different clips but the same videos, so they are combined video by video.
        for rows in zip(*(_each_video(scores) for scores in members.values()), strict=True):
            logs = [
                log_softmax(np.log(np.maximum(row, tiny)))[None, order] for row, order in zip(rows, orders, strict=True)
            ]
            yield Clips(np.zeros(1, np.int32), np.full(1, -1), np.zeros(1, np.int8), _mean_of_logs(logs))

    if all(same_clips(first, other) for other in others):
        write_scores(output, first.videos, first.classes, first.counts, of_clips(), record)
    else:
        write_scores(output, first.videos, first.classes, np.ones_like(first.counts), of_videos(), record)


def _each_video(scores: Scores) -> Iterator[np.ndarray]:
    """Probabilities of one video after the other, float64 (num_classes,)."""
    for _, probabilities in mean_probabilities(scores):
        yield from probabilities
