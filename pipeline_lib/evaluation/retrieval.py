"""Nearest-neighbour retrieval and k-NN classification with a network's features, without a trained classifier.

The protocol that self-supervised video networks report (Xu et al. 2019, "Self-supervised Spatiotemporal Learning via
Video Clip Order Prediction", section 4.4; Han et al. 2020, CoCLR, section 4.3): every video is the mean of its clips'
pooled features, each validation video asks the training videos by cosine, and R@k counts the queries that find one of
their own class among the k nearest. k-NN classification weighs its votes as Wu et al. 2018 (section 3.4).
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pipeline_lib.artefacts.progress import Progress
from pipeline_lib.artefacts.records import content_digest
from pipeline_lib.artefacts.stage import Stage
from pipeline_lib.clips.index import ClipIndex
from pipeline_lib.configuration.specification import EvaluationSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.code import retrieval_modules
from pipeline_lib.evaluation.results import NUM_NEIGHBOURS, read_metrics, write_metrics
from pipeline_lib.evaluation.runner import Judged, judged
from pipeline_lib.tasks.outputs import Forward

RANKS = (1, 5, 10)
VOTE_TEMPERATURE = 0.07
QUERIES_AT_ONCE = 512


def pooled_features(network: nn.Module, seen: str) -> Forward:
    """The last stage's activations, averaged over time and space: (C,) float64 of each clip, on the CPU."""
    name = network.endpoints[-2]  # type: ignore[index]

    def features(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        found: torch.Tensor = network.forward_features(batch[seen], [name])[name]  # type: ignore[operator]
        return F.adaptive_avg_pool3d(found.float(), 1).flatten(1).cpu().double()

    return features


def video_features(run: Judged, index: ClipIndex) -> np.ndarray:
    """The mean of each video's clips, of unit length: float32 (N, C), in the index's order."""
    training = run.specification.training
    forward = pooled_features(run.trained.network, training.modality)
    rows: dict[int, torch.Tensor] = {}
    with Progress(f"features {training.experiment}", len(index), "videos") as progress:
        for found in run.outputs(index, forward):
            # The clips are added one by one, because the sum must not depend on how they are divided into batches.
            rows[found.row] = functools.reduce(torch.add, found.outputs)
            progress.advance()
    unit: np.ndarray = F.normalize(torch.stack([rows[row] for row in range(len(index))]), dim=1).float().numpy()
    return unit


def neighbour_figures(
    queries: np.ndarray,
    query_labels: Sequence[tuple[int, ...]],
    gallery: np.ndarray,
    gallery_labels: Sequence[tuple[int, ...]],
    num_classes: int,
) -> dict[str, float]:
    """Retrieval and k-NN figures.

    Args:
        queries: float32 (Q, C), of unit length.
        query_labels: classes of each query; one of several suffices.
        gallery: float32 (G, C), of unit length, G ≥ 1.
        gallery_labels: classes of each.
        num_classes: of both.

    Returns:
        ``recall_at_1``, ``recall_at_5``, ``recall_at_10`` and ``knn_top1``, shares in [0, 1]. Of equally near
        videos the earlier one counts as nearer.
    """
    marks = np.zeros((len(gallery), num_classes), dtype=np.float64)
    for row, labels in enumerate(gallery_labels):
        marks[row, list(labels)] = 1.0
    own = np.zeros((len(queries), num_classes), dtype=bool)
    for row, labels in enumerate(query_labels):
        own[row, list(labels)] = True
    found = dict.fromkeys(RANKS, 0)
    right = 0
    depth = min(max(*RANKS, NUM_NEIGHBOURS), len(gallery))
    for first in range(0, len(queries), QUERIES_AT_ONCE):
        chunk = slice(first, first + QUERIES_AT_ONCE)
        similarity = queries[chunk] @ gallery.T
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :depth]
        hits: np.ndarray = (marks[nearest] * own[chunk, None, :]).sum(axis=2) > 0.0
        for rank in RANKS:
            found[rank] += int(hits[:, :rank].any(axis=1).sum())
        voters = nearest[:, :NUM_NEIGHBOURS]
        weights = np.exp((np.take_along_axis(similarity, voters, axis=1).astype(np.float64) - 1.0) / VOTE_TEMPERATURE)
        votes = (weights[:, :, None] * marks[voters]).sum(axis=1)
        right += int(np.take_along_axis(own[chunk], votes.argmax(axis=1)[:, None], axis=1).sum())
    figures = {f"recall_at_{rank}": found[rank] / len(queries) for rank in RANKS}
    return {**figures, "knn_top1": right / len(queries)}


def retrieve(
    specification: EvaluationSpecification, root: Path, output: Path, num_workers: int | None = None
) -> dict[str, Any]:
    """Make ``retrieval.json`` of one run: each validation video looks for the nearest training videos.

    Args:
        specification: the run and the protocol whose clips represent a video.
        root: output root, where manifest, shards and weights lie.
        output: the file to write.
        num_workers: decoding processes; None chooses. The result does not depend on it.

    Returns:
        The file's content.

    Raises:
        UserError: an input is missing or unreadable.
    """
    training = specification.training
    modules = retrieval_modules(training.model.name, specification.task)
    with Stage("retrieve", modules, output, root=root) as stage:
        run = judged(specification, root, num_workers)
        gallery, queries = (run.index(subset) for subset in ("train", "validation"))
        if gallery.classes != queries.classes:
            raise UserError(f"{run.summary}: train and validation differ in their classes.")
        parameters = run.parameters(gallery=gallery, queries=queries)
        if stage.is_finished(parameters, run.inputs(gallery, queries), run.versions()):
            return read_metrics(output)
        features = [video_features(run, index) for index in (gallery, queries)]
        figures = neighbour_figures(features[1], queries.labels, features[0], gallery.labels, len(gallery.classes))
        record = run.names() | {
            "manifest": content_digest(run.summary),
            "num_queries": len(queries),
            "num_gallery": len(gallery),
            "num_features": int(features[0].shape[1]),
            "metrics": figures,
            "provenance": stage.record,
        }
        write_metrics(output, record)
        stage.finish({"videos": len(gallery) + len(queries)})
    return record
