"""Ensembles from score files alone: the mean of the members' softmax scores (D3D, section 5.3).

The result is a score file of the same format: its logits are the logarithms of the averaged probabilities, so that
their softmax is that average. Where all members hold the same clips it keeps them, and Clip@1 of the ensemble is
defined; where members were evaluated on other clips (networks of different clip lengths) it holds one row a video,
with start −1.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_lib.artefacts import stages
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.artefacts.records import content_digest, distribution_versions
from pipeline_lib.artefacts.stage import Stage
from pipeline_lib.configuration.specification import EnsembleSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.metrics import ROWS_AT_A_TIME, Evaluation, log_softmax
from pipeline_lib.evaluation.results import metrics_record, read_metrics, write_metrics
from pipeline_lib.evaluation.scores import Scores, read_scores, write_scores


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
    same_clips = all(first.same_clips(members[name]) for name in names[1:])
    rows, orders = [], []
    for name in names:
        scores = members[name]
        column = {label: position for position, label in enumerate(scores.classes)}
        orders.append([column[label] for label in first.classes])
        if same_clips:
            rows.append(scores.logits)
        else:
            # The logarithm of the video's mean: its softmax is that mean again.
            probabilities = Evaluation(scores).video_probabilities
            rows.append(np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)))
    logits = np.empty(rows[0].shape, dtype=np.float32)
    for start in range(0, len(logits), ROWS_AT_A_TIME):
        piece = slice(start, start + ROWS_AT_A_TIME)
        logits[piece] = _mean_of_logs(
            [log_softmax(row[piece])[:, order] for row, order in zip(rows, orders, strict=True)]
        )
    if same_clips:
        video, starts, crops = first.video, first.starts, first.crops
    else:
        video = np.arange(len(first.videos), dtype=np.int32)
        starts = np.full(len(video), -1, dtype=np.int64)
        crops = np.zeros(len(video), dtype=np.int8)
    return Scores(first.videos, first.classes, video, starts, crops, logits, provenance)


def evaluate_ensemble(specification: EnsembleSpecification, root: Path, output: Path) -> dict[str, Any]:
    """Make ``scores.h5`` and ``metrics.json`` of an ensemble from its members' score files.

    Args:
        specification: the members' runs (``{experiment}/{split}-{seed}``) and the protocol.
        root: output root.
        output: folder of the two files.

    Returns:
        The content of ``metrics.json``.

    Raises:
        UserError: a member's score file is missing, or the members do not fit together.
    """
    layout = Layout(root)
    with Stage("ensemble", stages.ENSEMBLE, output / "scores.h5", [output / "metrics.json"]) as stage:
        members: dict[str, Scores] = {}
        inputs: dict[Path | str, str] = {}
        folder = output
        for member in specification.members:
            experiment, _, run = member.partition("/")
            split, _, seed = run.partition("-")
            folder = layout.evaluation(experiment, split, seed, specification.protocol_name)
            members[member] = read_scores(folder / "scores.h5")
            inputs[folder / "scores.h5"] = content_digest(folder / "scores.h5")
        first = next(iter(members.values()))
        if stage.is_finished(
            {
                "experiment": specification.experiment,
                "split": specification.split,
                "seed": specification.seed,
                "members": specification.members,
                "protocol": specification.protocol.model_dump(),
            },
            inputs,
            distribution_versions(["numpy", "h5py"]),
            first.manifest,
        ):
            return read_metrics(output / "metrics.json")
        scores = combine(members, stage.record)
        # The members judge the same videos of the same manifest, so the last one's counts are the ensemble's.
        counted = read_metrics(folder / "metrics.json")
        write_scores(output / "scores.h5", scores)
        run_names = {
            "experiment": specification.experiment,
            "split": specification.split,
            "seed": specification.seed,
            "protocol": specification.protocol_name,
            "dataset": counted["dataset"],
            "subset": counted["subset"],
            "members": specification.members,
        }
        metrics = metrics_record(scores, run_names, counted["counts"])
        write_metrics(output / "metrics.json", metrics)
        stage.finish()
    return metrics
