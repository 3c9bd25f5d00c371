"""The classes of any video, from frames and flow that the training's own stages make."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline_lib.artefacts.atomic import write_json
from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.clips.index import ClipIndex
from pipeline_lib.clips.protocol_clips import ProtocolClips
from pipeline_lib.configuration.data import FrameFormat
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.specification import FramesSpecification, MotionSpecification, TrainingSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.trained import TrainedNetwork, load_trained
from pipeline_lib.flow.motion_stage import extract_motion
from pipeline_lib.media.frames_stage import extract_frames
from pipeline_lib.media.shards import Shard
from pipeline_lib.tasks.classification.metrics import softmax
from pipeline_lib.tasks.classification.task import TASK
from pipeline_lib.tasks.outputs import video_outputs

VIDEO = "video"
"""Id of the one video in the shards made here."""


@dataclass(frozen=True)
class Prediction:
    """The class of a video, as some networks predict it.

    Attributes:
        classes: class names.
        probabilities: float64 (num_classes,), the mean over networks and clips.
        num_clips: clips per network.
        num_frames: frames of the video after resampling.
    """

    classes: tuple[str, ...]
    probabilities: np.ndarray
    num_clips: int
    num_frames: int

    def top(self, count: int) -> list[tuple[str, float]]:
        """The most probable classes, the first of equals first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.classes[label], float(self.probabilities[label])) for label in order]


def stored_frame_format(layout: Layout, specification: TrainingSpecification) -> FrameFormat | None:
    """The frame format that a training saw, as its frames shards record it; None if they have been deleted.

    Raises:
        UserError: a shard is unreadable.
    """
    folder = layout.frames(specification.dataset, specification.frame_format, "000").parent
    for path in sorted(folder.glob("*.h5")):
        shard = Shard(path)
        parameters = shard.record.get("parameters", {})
        shard.close()
        return FrameFormat.model_validate(parameters["frames"], strict=False) if "frames" in parameters else None
    return None


def find_weights(layout: Layout, experiment: str, split: int, seed: int) -> Path:
    """The weights of a run.

    Raises:
        UserError: there are none; the message lists the experiments that have been trained.
    """
    path = layout.weights(experiment, str(split), str(seed))
    if not path.is_file():
        trained = sorted(found.parent.relative_to(layout.root / "experiments") for found in _weights_below(layout))
        known = ", ".join(str(name) for name in trained) or "none"
        raise UserError(
            f"{path} is missing: {experiment} {split}-{seed} has not been trained. "
            f"Trained below {layout.root}: {known}."
        )
    return path


def _weights_below(layout: Layout) -> list[Path]:
    return list((layout.root / "experiments").glob("*/*/weights.safetensors"))


def _extract(
    video: Path, specification: TrainingSpecification, frames: FrameFormat, folder: Path, num_threads: int
) -> ClipIndex:
    """Make a video's frames, and its motion if the network sees it; returns an index of one row."""
    write_json(folder / "list.json", {"videos": [{"id": VIDEO, "path": str(video.resolve())}]})
    frames_path, motion_path = folder / "frames.h5", folder / "motion.h5"
    frames_specification = FramesSpecification(
        dataset="predict",
        frame_format=specification.frame_format,
        frames=frames,
        # Use the frames that decode, even if the video is damaged.
        on_decode_error="keep",
    )
    extract_frames(frames_specification, folder / "list.json", frames_path, num_threads)
    shard = Shard(frames_path)
    if VIDEO in shard.rejected:
        raise UserError(f"{video} cannot be used: {shard.rejected[VIDEO]}.")
    bound = 0.0
    sees_flow = specification.modality == "flow"
    if sees_flow:
        kind = specification.motion_kind
        if kind is None or specification.motion is None:
            raise UserError(
                f"{specification.experiment} sees flow, but its weights do not say of which kind; train it again."
            )
        motion_specification = MotionSpecification(
            dataset="predict",
            frame_format=specification.frame_format,
            motion=specification.motion,
            motion_kind=kind,
            device=specification.hardware.device,
        )
        extract_motion(motion_specification, frames_path, motion_path, num_threads)
        motion = Shard(motion_path)
        if VIDEO in motion.rejected:
            raise UserError(f"{video}: no flow can be computed: {motion.rejected[VIDEO]}.")
        bound = kind.bound
        motion.close()
    row = shard.videos[shard.index[VIDEO]]
    shard.close()
    return ClipIndex(
        classes=(),
        ids=np.array([VIDEO], dtype=object),
        labels=((),),
        shards=np.zeros(1, dtype=np.int32),
        frames_first=np.zeros(1, dtype=np.int64),
        motion_first=np.zeros(1, dtype=np.int64) if sees_flow else None,
        video_frames=np.array([row.num_frames], dtype=np.int64),
        heights=np.array([row.height], dtype=np.int32),
        widths=np.array([row.width], dtype=np.int32),
        frames_per_second=np.array([row.frames_per_second]),
        frames_paths=(frames_path,),
        motion_paths=(motion_path,) if sees_flow else (),
        motion_bound=bound,
        digest="",
    )


def clip_probabilities(trained: TrainedNetwork, index: ClipIndex, protocol: Protocol) -> np.ndarray:
    """Softmax of every clip of the index' first video, float64 (num_clips, num_classes)."""
    specification = trained.specification
    clips = ProtocolClips(index, protocol, specification.recipe.sampling, [specification.modality])
    forward = trained.computed(TASK.forward(trained.network, specification.modality))
    (found,) = video_outputs(clips, forward, trained.device)
    return softmax(torch.stack(list(found.outputs)).numpy())


def predict(
    video: Path,
    weights: Sequence[Path],
    protocol: Protocol,
    frame_formats: Sequence[FrameFormat],
    num_threads: int = 1,
    device: str | None = None,
) -> Prediction:
    """Classify a video file.

    Args:
        video: any file that ffmpeg decodes.
        weights: of one network, or of several whose softmax scores are averaged.
        protocol: which clips are taken.
        frame_formats: of each network, the format that its training saw.
        num_threads: for decoding and flow.
        device: ``auto``, ``cpu`` or ``cuda``; None takes the training's.

    Raises:
        UserError: the video cannot be read, or the networks have different classes.
    """
    if not video.is_file():
        raise UserError(f"{video}: there is no such file.")
    networks = [load_trained(path, device) for path in weights]
    classes = networks[0].classes
    for network, path in zip(networks, weights, strict=True):
        if network.classes != classes:
            raise UserError(f"{path} knows other classes than {weights[0]}: their scores cannot be averaged.")
    scores = []
    num_clips = num_frames = 0
    for network, frames in zip(networks, frame_formats, strict=True):
        with tempfile.TemporaryDirectory(prefix="predict-") as folder:
            index = _extract(video, network.specification, frames, Path(folder), num_threads)
            probabilities = clip_probabilities(network, index, protocol)
        scores.append(probabilities.mean(axis=0))
        num_clips, num_frames = len(probabilities), int(index.video_frames[0])
    return Prediction(classes, np.mean(scores, axis=0), num_clips, num_frames)


def as_json(prediction: Prediction, video: Path, experiments: Sequence[str], count: int) -> str:
    """The prediction as one JSON object."""
    return json.dumps(
        {
            "video": str(video),
            "experiments": list(experiments),
            "num_frames": prediction.num_frames,
            "num_clips": prediction.num_clips,
            "classes": [{"class": name, "probability": round(share, 6)} for name, share in prediction.top(count)],
        },
        ensure_ascii=False,
    )
