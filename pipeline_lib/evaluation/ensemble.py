"""Ensembles from score files alone: the mean of the members' softmax scores (D3D, section 5.3).

The result is a score file of the same format: its logits are the logarithms of the averaged probabilities, so that
their softmax is that average. Where all members hold the same clips it keeps them, and Clip@1 of the ensemble is
defined; where members were evaluated on other clips (networks of different clip lengths) it holds one row a video,
with start −1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.metrics import Evaluation, log_softmax
from pipeline_lib.evaluation.scores import Scores


def _mean_of_logs(logs: Sequence[np.ndarray]) -> np.ndarray:
    """log(mean(exp(x))) over the members, without underflow, float32."""
    stacked = np.stack(logs)
    peak = stacked.max(axis=0)
    result: np.ndarray = (peak + np.log(np.exp(stacked - peak).mean(axis=0))).astype(np.float32)
    return result


def combine(members: Mapping[str, Scores], provenance: Mapping[str, Any]) -> Scores:
    """Average the softmax scores of the members.

    Args:
        members: name → score file, at least two. A name may not come twice, a score file may (its weight doubles).
        provenance: of the result.

    Raises:
        UserError: members were made from different manifests, hold different videos, or have other classes.
    """
    names = list(members)
    if len(names) < 2:
        raise UserError(f"an ensemble needs at least two members, not {len(names)} ({', '.join(names)}).")
    first = members[names[0]]
    for name in names[1:]:
        other = members[name]
        if other.manifest_digest != first.manifest_digest:
            raise UserError(
                f"the ensemble's members {names[0]} and {name} were evaluated on different manifests "
                f"({first.manifest_digest[:12] or 'unknown'} and {other.manifest_digest[:12] or 'unknown'}). "
                "Evaluate both again on the same one: snakemake does so when both are targets."
            )
        if set(other.classes) != set(first.classes):
            missing = sorted(set(first.classes) ^ set(other.classes))
            raise UserError(
                f"the ensemble's members {names[0]} and {name} have different classes, for example {missing[0]!r}."
            )
        if other.videos != first.videos:
            different = sorted(set(first.videos) ^ set(other.videos), key=lambda video: video.id)
            raise UserError(
                f"the ensemble's members {names[0]} ({len(first.videos)} videos) and {name} ({len(other.videos)} "
                f"videos) hold different videos; the first that differs is {different[0].id}."
            )
    logs = []
    same_clips = all(first.same_clips(members[name]) for name in names[1:])
    for name in names:
        scores = members[name]
        column = {label: position for position, label in enumerate(scores.classes)}
        order = [column[label] for label in first.classes]
        if same_clips:
            logs.append(log_softmax(scores.logits)[:, order])
        else:
            probabilities = Evaluation(scores).video_probabilities[:, order]
            logs.append(np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)))
    if same_clips:
        video, starts, crops = first.video, first.starts, first.crops
    else:
        video = np.arange(len(first.videos), dtype=np.int32)
        starts = np.full(len(video), -1, dtype=np.int64)
        crops = np.zeros(len(video), dtype=np.int8)
    return Scores(first.videos, first.classes, video, starts, crops, _mean_of_logs(logs), provenance)
