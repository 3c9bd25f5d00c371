"""Nearest-neighbour retrieval and k-NN classification with a network's features: what they are worth untrained.

The protocol that self-supervised video networks report (Xu et al. 2019, "Self-supervised Spatiotemporal Learning via
Video Clip Order Prediction", section 4.4; Han et al. 2020, CoCLR, section 4.3): every video is the mean of its clips'
pooled features, each validation video asks the training videos by cosine, and R@k counts the queries that find one of
their own class among the k nearest. k-NN classification weighs its votes as Wu et al. 2018 (section 3.4).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from pipeline_lib.artefacts import stages
from pipeline_lib.artefacts.atomic import write_json
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.artefacts.progress import Progress
from pipeline_lib.artefacts.records import content_digest, distribution_versions, torch_versions
from pipeline_lib.artefacts.stage import Stage
from pipeline_lib.clips.batches import to_network_input
from pipeline_lib.clips.dataset import ClipReader, RequestedClips, clip_loader
from pipeline_lib.clips.index import ClipIndex, build_index
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.specification import EvaluationSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.results import NUM_NEIGHBOURS
from pipeline_lib.evaluation.runner import RequestBatches, batch_requests, manifest_digest, video_requests
from pipeline_lib.evaluation.trained import TrainedNetwork, load_trained
from pipeline_lib.models.catalogue import resolve

RANKS = (1, 5, 10)
VOTE_TEMPERATURE = 0.07
QUERIES_AT_ONCE = 512


@torch.inference_mode()
def pooled_features(trained: TrainedNetwork, clip_BCTHW: torch.Tensor) -> torch.Tensor:
    """The last stage's activations, averaged over time and space: (B, C) float32 on the CPU."""
    network = trained.network
    name = network.endpoints[-2]  # type: ignore[index]
    mixed = trained.device.type == "cuda" and trained.specification.recipe.precision == "bfloat16"
    with torch.autocast(trained.device.type, dtype=torch.bfloat16, enabled=mixed):
        features: torch.Tensor = network.forward_features(clip_BCTHW, [name])[name]  # type: ignore[operator]
    return F.adaptive_avg_pool3d(features.float(), 1).flatten(1).cpu()


def video_features(trained: TrainedNetwork, index: ClipIndex, protocol: Protocol, num_workers: int) -> np.ndarray:
    """The mean of each video's clips, of unit length: float32 (N, C), in the index's order.

    Args:
        trained: the network.
        index: the videos.
        protocol: which clips.
        num_workers: processes that decode; 0 decodes in this one.
    """
    sampling, modality = trained.specification.recipe.sampling, trained.specification.modality
    requests = [
        request
        for row in range(len(index))
        for request, _ in video_requests(
            protocol,
            sampling,
            row,
            int(index.num_frames[row]),
            int(index.heights[row]),
            int(index.widths[row]),
        )
    ]
    batches = batch_requests(requests)
    clips = RequestedClips(ClipReader(index, [modality]), requests)
    loader = clip_loader(clips, RequestBatches(batches), num_workers, trained.device.type == "cuda")
    sums: torch.Tensor | None = None
    with Progress(f"features {trained.specification.experiment}", len(requests), "clips") as progress:
        for batch, positions in zip(loader, batches, strict=True):
            features = pooled_features(trained, to_network_input(batch, trained.device)[modality])
            if sums is None:
                sums = torch.zeros(len(index), features.shape[1], dtype=torch.float64)
            videos = torch.tensor([requests[position].video for position in positions])
            # In order, one after the other: a video's sum must not depend on how clips are cut into batches.
            for video, row in zip(videos.tolist(), features.double(), strict=True):
                sums[video] += row
            progress.advance(len(positions))
    assert sums is not None  # an index is never empty
    unit: np.ndarray = F.normalize(sums, dim=1).float().numpy()
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


def retrieve(specification: EvaluationSpecification, root: Path, output: Path, num_threads: int) -> dict[str, Any]:
    """Make ``retrieval.json`` of one run: its validation videos ask its training videos.

    Args:
        specification: the run and the protocol whose clips stand for a video.
        root: output root, where manifest, shards and weights lie.
        output: the file to write.
        num_threads: decoding processes beside a GPU.

    Returns:
        The file's content.

    Raises:
        UserError: an input is missing or unreadable.
    """
    training, protocol = specification.training, specification.protocol
    layout = Layout(root)
    weights = layout.weights(training.experiment, str(training.split), str(training.seed))
    with Stage("retrieve", stages.retrieval_modules(resolve(training.model.name)[0]), output) as stage:
        trained = load_trained(weights, training.hardware.device)
        if trained.device.type == "cpu":
            torch.set_num_threads(training.hardware.num_threads)
        motion = training.motion if training.modality == "flow" else None
        place = (training.dataset, training.frame_format, motion, training.num_shards, training.split)
        gallery, queries = (build_index(layout, *place, subset) for subset in ("train", "validation"))
        if gallery.classes != queries.classes:
            raise UserError(f"{layout.manifest(training.dataset)}: train and validation differ in their classes.")
        num_workers = num_threads if trained.device.type == "cuda" else 0
        features = [video_features(trained, index, protocol, num_workers) for index in (gallery, queries)]
        figures = neighbour_figures(features[1], queries.labels, features[0], gallery.labels, len(gallery.classes))
        record = {
            "experiment": training.experiment,
            "split": training.split,
            "seed": training.seed,
            "protocol": specification.protocol_name,
            "dataset": training.dataset,
            "manifest": manifest_digest(layout, training.dataset),
            "num_queries": len(queries),
            "num_gallery": len(gallery),
            "num_features": int(features[0].shape[1]),
            "metrics": figures,
            "provenance": stage.describe(
                {
                    "dataset": training.dataset,
                    "split": training.split,
                    "protocol": protocol.model_dump(),
                    "sampling": training.recipe.sampling.model_dump(),
                    "device": trained.device.type,
                    "gallery": gallery.digest,
                    "queries": queries.digest,
                },
                {weights: content_digest(weights)} | gallery.inputs | queries.inputs,
                torch_versions(trained.device.type)
                | distribution_versions(["simplejpeg", "opencv-contrib-python-headless", "numpy"]),
                {layout.summary(training.dataset): manifest_digest(layout, training.dataset)},
            ),
        }
        write_json(output, record)
        stage.finish({"videos": len(gallery) + len(queries)})
    return record
