"""The evaluation stage: a trained network and a protocol in, the logits of every clip and the figures out.

Only what the network sees is read: an RGB network needs no motion shard.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.utils.data import Sampler

from pipeline_lib.artefacts import stages
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.artefacts.progress import Progress
from pipeline_lib.artefacts.records import content_digest, distribution_versions, torch_versions
from pipeline_lib.artefacts.stage import Stage
from pipeline_lib.clips.batches import to_network_input
from pipeline_lib.clips.dataset import ClipReader, RequestedClips, clip_loader
from pipeline_lib.clips.index import ClipIndex, build_index
from pipeline_lib.clips.sampling import ClipRequest, uniform_starts
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.specification import EvaluationSpecification, TrainingSpecification
from pipeline_lib.configuration.training import Sampling
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.results import metrics_record, read_metrics, write_metrics
from pipeline_lib.evaluation.scores import LabelledVideo, ScoresPart, VideoScores
from pipeline_lib.evaluation.trained import TrainedNetwork, load_trained
from pipeline_lib.models.catalogue import resolve

# One forward pass sees at most this many pixels (eight clips of 64 × 224²), and at most this many clips. The number
# is fixed so that a clip's logits never depend on where an evaluation was interrupted.
PIXELS_PER_BATCH = 8 * 64 * 224 * 224
CLIPS_PER_BATCH = 64


def crop_places(num_crops: int, height: int, width: int) -> list[tuple[float, float]]:
    """Places (vertical, horizontal) of the crops in [0, 1]: the centre, or three along the longer side.

    Three crops are those of the non-local networks (Wang et al. 2018, section 5.1): they cover the frame when the
    crop's side is the short side's.
    """
    if num_crops == 1:
        return [(0.5, 0.5)]
    steps = [index / (num_crops - 1) for index in range(num_crops)]
    return [(0.5, step) if width >= height else (step, 0.5) for step in steps]


def video_requests(
    protocol: Protocol, sampling: Sampling, video: int, total: int, height: int, width: int
) -> list[tuple[ClipRequest, int]]:
    """The clips of one video under a protocol, each with the index of its crop.

    Args:
        protocol: how many clips and crops; null values come from the recipe.
        sampling: the recipe's.
        video: row of the index.
        total: frames of the video.
        height: of the stored frames, pixels.
        width: of the stored frames, pixels.
    """
    crop = protocol.crop or sampling.crop
    num_frames = protocol.num_frames or sampling.num_frames
    if protocol.num_clips == "all_frames":
        # S3D-G and D3D: one clip of all frames. A video shorter than a training clip loops, as in training.
        num_frames = max(num_frames, len(range(0, total, sampling.stride)))
        starts = [0]
    else:
        starts = uniform_starts(protocol.num_clips, num_frames, sampling.stride, total)
    return [
        (
            ClipRequest(
                video=video,
                start=start,
                num_frames=num_frames,
                stride=sampling.stride,
                crop=crop,
                short_side=max(sampling.short_side[0], crop),
                vertical=vertical,
                horizontal=horizontal,
                reverse=protocol.reverse,
            ),
            index,
        )
        for start in starts
        for index, (vertical, horizontal) in enumerate(crop_places(protocol.num_crops, height, width))
    ]


def batch_requests(requests: Sequence[ClipRequest]) -> list[list[int]]:
    """Positions of the requests in batches of equal clip length, within the limits of this module.

    Whole videos where they fit: a resumed evaluation must meet the same batches.
    """
    batches: list[list[int]] = []
    for position, request in enumerate(requests):
        pixels = request.num_frames * request.crop * request.crop
        limit = max(1, min(CLIPS_PER_BATCH, PIXELS_PER_BATCH // pixels))
        last = batches[-1] if batches else []
        if last and len(last) < limit and requests[last[0]].num_frames == request.num_frames:
            last.append(position)
        else:
            batches.append([position])
    return batches


class RequestBatches(Sampler[list[int]]):
    """Given batches, in order."""

    def __init__(self, batches: Sequence[list[int]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


def score_videos(
    trained: TrainedNetwork, index: ClipIndex, protocol: Protocol, part: ScoresPart, num_workers: int
) -> None:
    """Compute the logits of every clip that the part does not hold yet.

    Args:
        trained: the network.
        index: the videos.
        protocol: which clips.
        part: gets the scores, video by video.
        num_workers: processes that decode; 0 decodes in this one.
    """
    specification = trained.specification
    requests: list[ClipRequest] = []
    crops: list[int] = []
    for row in range(len(index)):
        shape = (int(index.num_frames[row]), int(index.heights[row]), int(index.widths[row]))
        for request, crop in video_requests(protocol, specification.recipe.sampling, row, *shape):
            requests.append(request)
            crops.append(crop)
    counts = [0] * len(index)
    for request in requests:
        counts[request.video] += 1
    # A batch is skipped only when all its videos are done, so that the others are computed in the batch that an
    # uninterrupted run would have had.
    batches = [
        batch
        for batch in batch_requests(requests)
        if any(index.ids[requests[position].video] not in part.scores for position in batch)
    ]
    reader = ClipReader(index, [specification.modality])
    loader = clip_loader(
        RequestedClips(reader, requests), RequestBatches(batches), num_workers, trained.device.type == "cuda"
    )
    collected: dict[int, list[tuple[int, int, torch.Tensor]]] = {}
    label = f"evaluate {specification.experiment}"
    with Progress(label, len(index), "videos", initial=part.resumed) as progress:
        for batch, positions in zip(loader, batches, strict=True):
            logits = trained.logits(to_network_input(batch, trained.device)[specification.modality])
            for row, position in enumerate(positions):
                video = requests[position].video
                collected.setdefault(video, []).append((requests[position].start, crops[position], logits[row]))
                if len(collected[video]) == counts[video]:
                    clips = collected.pop(video)
                    if index.ids[video] in part.scores:
                        continue
                    starts, crop_indices, rows = zip(*clips, strict=True)
                    part.append(
                        index.ids[video],
                        VideoScores(
                            torch.tensor(starts).numpy(),
                            torch.tensor(crop_indices, dtype=torch.int8).numpy(),
                            torch.stack(rows).numpy(),
                        ),
                    )
                    progress.advance()


def subset_counts(layout: Layout, dataset: str, split: int, subset: str, num_evaluated: int) -> dict[str, int]:
    """What became of the videos that a list names: counts for ``metrics.json``.

    Returns:
        ``listed``, ``accepted``, ``rejected``, ``missing`` (by the manifest), ``evaluated``, and
        ``rejected_later`` (accepted, but a later stage could not use them).
    """
    column = f"subset_{split}"
    table = pd.read_parquet(layout.manifest(dataset), columns=["status", column])
    status = table.loc[table[column] == subset, "status"].value_counts()
    counts = {name: int(status.get(name, 0)) for name in ("accepted", "rejected", "missing")}
    return {
        "listed": int(status.sum()),
        **counts,
        "evaluated": num_evaluated,
        "rejected_later": counts["accepted"] - num_evaluated,
    }


def manifest_digest(layout: Layout, dataset: str) -> str:
    """Digest of a data set's manifest, from its summary.

    Raises:
        UserError: the summary is missing or damaged.
    """
    path = layout.summary(dataset)
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["digest"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({error}): the manifest of {dataset} has to be built first.") from error


def _check_same_training(trained: TrainedNetwork, wanted: TrainingSpecification, path: Path) -> None:
    made = trained.specification
    if (made.experiment, made.split, made.seed, made.model) != (
        wanted.experiment,
        wanted.split,
        wanted.seed,
        wanted.model,
    ):
        raise UserError(
            f"{path} holds {made.experiment} {made.split}-{made.seed} ({made.model.name}), not "
            f"{wanted.experiment} {wanted.split}-{wanted.seed} ({wanted.model.name}): train it again."
        )


def evaluate(specification: EvaluationSpecification, root: Path, output: Path, num_threads: int) -> dict[str, Any]:
    """Make ``scores.h5`` and ``metrics.json`` of one run. Killed and started again, it goes on.

    Args:
        specification: the run and the protocol.
        root: output root, where manifest, shards and weights lie.
        output: folder of the two files.
        num_threads: decoding processes beside a GPU; on the CPU the specification says how many threads compute.

    Returns:
        The content of ``metrics.json``.

    Raises:
        UserError: an input is missing or unreadable, or the network's classes are not the data set's.
    """
    training, protocol = specification.training, specification.protocol
    layout = Layout(root)
    weights = layout.weights(training.experiment, str(training.split), str(training.seed))
    modules = stages.evaluation_modules(resolve(training.model.name)[0])
    with Stage("evaluate", modules, output / "scores.h5", [output / "metrics.json"]) as stage:
        trained = load_trained(weights, training.hardware.device)
        if trained.device.type == "cpu":
            # As in training: the order of float sums, and so the last bits, follow from the number of threads.
            torch.set_num_threads(training.hardware.num_threads)
            torch.use_deterministic_algorithms(True)
            # Deterministic mode would fill every new tensor, which finds bugs and costs time.
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        _check_same_training(trained, training, weights)
        index = build_index(
            layout,
            training.dataset,
            training.frame_format,
            training.motion if training.modality == "flow" else None,
            training.num_shards,
            training.split,
            protocol.subset,
        )
        unknown = sorted(set(index.classes) - set(trained.classes))
        if unknown:
            raise UserError(
                f"{weights} was trained on {len(trained.classes)} classes; {training.dataset} has {unknown[0]!r} "
                f"({len(unknown)} such), which it does not know. Its manifest changed since: train it again."
            )
        summary = layout.summary(training.dataset)
        if stage.is_finished(
            {
                "experiment": training.experiment,
                "split": training.split,
                "seed": training.seed,
                "dataset": training.dataset,
                "frame_format": training.frame_format,
                "modality": training.modality,
                "protocol": protocol.model_dump(),
                "sampling": training.recipe.sampling.model_dump(),
                "device": trained.device.type,
                "clips": index.digest,
            },
            {**index.inputs, summary: manifest_digest(layout, training.dataset), weights: content_digest(weights)},
            torch_versions(trained.device.type)
            | distribution_versions(["simplejpeg", "opencv-contrib-python-headless", "h5py", "numpy"]),
        ):
            return read_metrics(output / "metrics.json")
        with ScoresPart(output / "scores.h5", stage.record["digest"], len(trained.classes)) as part:
            # A tiny evaluation is over before a second process has started.
            num_workers = num_threads if trained.device.type == "cuda" else 0
            resumed = part.resumed
            score_videos(trained, index, protocol, part, num_workers)
            videos = [
                LabelledVideo(id, protocol.subset, tuple(index.classes[label] for label in labels))
                for id, labels in zip(index.ids.tolist(), index.labels, strict=True)
            ]
            scores = part.finish(videos, trained.classes, stage.record)
        run = {
            "experiment": training.experiment,
            "split": training.split,
            "seed": training.seed,
            "protocol": specification.protocol_name,
            "dataset": training.dataset,
            "subset": protocol.subset,
        }
        counts = subset_counts(layout, training.dataset, training.split, protocol.subset, len(index))
        metrics = metrics_record(scores, run, counts)
        write_metrics(output / "metrics.json", metrics)
        stage.finish({"videos": len(index), "resumed_videos": resumed})
    return metrics
