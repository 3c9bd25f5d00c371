"""The classes of any video, from frames and flow that the training's own stages make."""

import io
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.clips.columns import Labels, Texts
from pipeline_lib.clips.index import ClipIndex
from pipeline_lib.clips.protocol_clips import ProtocolClips
from pipeline_lib.configuration.data import FrameFormat
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.specification import FramesSpecification, MotionSpecification, TrainingSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.trained import TrainedNetwork
from pipeline_lib.flow.motion_stage import extract_motion
from pipeline_lib.manifests.content import is_utf8, printable
from pipeline_lib.manifests.pool import probe_alone
from pipeline_lib.manifests.probing import Probe
from pipeline_lib.manifests.shard_lists import write_shard_list
from pipeline_lib.media.ffmpeg import ffmpeg_executable
from pipeline_lib.media.frames_stage import extract_frames
from pipeline_lib.media.shards import Shard, ShardPart
from pipeline_lib.tasks.classification.metrics import softmax
from pipeline_lib.tasks.classification.task import TASK
from pipeline_lib.tasks.outputs import Forward, video_outputs

VIDEO = "video"
"""Id of the one video in the shards made here."""
PROBE_SECONDS = 3600.0
"""Time limit for looking at a file, as long as for its frames."""
DEFAULT_RATE = 25.0
"""Frames per second of an array of frames if nothing says it."""


@dataclass(frozen=True)
class Prediction:
    """The class of a video, as some networks predict it.

    Attributes:
        classes: class names.
        probabilities: float64 (num_classes,), the mean over networks and clips.
        num_clips: clips per network.
        num_frames: frames of the video after resampling; of a stream, of the window.
        last_frame: of a stream, the number of the last frame that was seen, from 0; None otherwise.
    """

    classes: tuple[str, ...]
    probabilities: np.ndarray
    num_clips: int
    num_frames: int
    last_frame: int | None = None

    def top(self, count: int) -> list[tuple[str, float]]:
        """The most probable classes, the first of equals first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.classes[label], float(self.probabilities[label])) for label in order]


def mean_prediction(predictions: Sequence[Prediction]) -> Prediction:
    """The mean of what several networks predict of one video; the counts are the last one's.

    Raises:
        UserError: they know different classes.
    """
    first, last = predictions[0], predictions[-1]
    for other in predictions:
        if other.classes != first.classes:
            raise UserError("the networks know different classes: their scores cannot be averaged.")
    probabilities = np.mean([one.probabilities for one in predictions], axis=0)
    return Prediction(first.classes, probabilities, last.num_clips, last.num_frames, last.last_frame)


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


def frame_format_of(layout: Layout, specification: TrainingSpecification, short_side: int | None) -> FrameFormat:
    """The frame format that a training saw; without its frames shards, one of this short side in pixels.

    Raises:
        UserError: neither is there.
    """
    stored = stored_frame_format(layout, specification)
    if stored is None and short_side is None:
        raise UserError(
            f"{specification.experiment} was trained on frames that no longer lie below {layout.root / 'frames'}, "
            "which would say how they were scaled: give --short-side, in Python short_side=… (256 for the papers' "
            "networks)."
        )
    return stored or FrameFormat(short_side=short_side)


def find_weights(layout: Layout, experiment: str, split: int, seed: int) -> Path:
    """The weights of a run.

    Raises:
        UserError: there are none; the message lists the experiments that have been trained.
    """
    path = layout.weights(experiment, str(split), str(seed))
    if not path.is_file():
        raise UserError(
            f"{path} is missing: {experiment} {split}-{seed} has not been trained. "
            f"Trained below {layout.root}: {', '.join(layout.trained()) or 'none'}."
        )
    return path


def _probe(video: Path) -> Probe:
    """What the manifest would find in a file; of a damaged one that has frames, the damage is said.

    Raises:
        UserError: the manifest would reject it, whatever ``on_decode_error`` says; the message is its reason.
    """
    if not is_utf8(str(video)):
        raise UserError(f"{printable(str(video))} cannot be used: its name is not UTF-8; rename it.")
    probe = probe_alone(video.resolve(), True, PROBE_SECONDS)
    if not probe.problem:
        return probe
    if not probe.usable:
        raise UserError(f"{video} cannot be used: {probe.problem}.")
    print(f"{video}: {probe.problem}. The frames that decode are used.", file=sys.stderr)
    return probe


def _quiet() -> AbstractContextManager[object]:
    """Drop what a stage tells of its progress: it is of a whole shard, and here a shard is one video."""
    return redirect_stderr(io.StringIO())


def _extract(
    video: Path, specification: TrainingSpecification, frames: FrameFormat, folder: Path, num_threads: int
) -> ClipIndex:
    """Make a video's frames, and its motion if the network sees it; returns an index of one row."""
    probe = _probe(video)
    listed = {"id": VIDEO, "path": str(video.resolve()), "stream": probe.stream, "num_frames": probe.num_frames}
    write_shard_list(folder / "list.json", "predict", "list", [listed])
    frames_path = folder / "frames.h5"
    frames_specification = FramesSpecification(
        dataset="predict",
        frame_format=specification.frame_format,
        frames=frames,
        # Use the frames that decode, even if the video is damaged.
        on_decode_error="keep",
    )
    # It says which ffmpeg is used, once.
    ffmpeg_executable()
    with _quiet():
        extract_frames(frames_specification, folder / "list.json", frames_path, num_threads)
    shard = Shard(frames_path)
    if VIDEO in shard.rejected:
        raise UserError(f"{video} cannot be used: {shard.rejected[VIDEO]}.")
    shard.close()
    return _index(frames_path, specification, str(video), num_threads)


def _index(frames_path: Path, specification: TrainingSpecification, name: str, num_threads: int) -> ClipIndex:
    """An index of the one video in a shard; its motion is made beside the frames if the network sees it."""
    motion_path = frames_path.with_name("motion.h5")
    shard = Shard(frames_path)
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
        with _quiet():
            extract_motion(motion_specification, frames_path, motion_path, num_threads)
        motion = Shard(motion_path)
        if VIDEO in motion.rejected:
            raise UserError(f"{name}: no flow can be computed: {motion.rejected[VIDEO]}.")
        bound = kind.bound
        motion.close()
    row = shard.videos[shard.index[VIDEO]]
    shard.close()
    return ClipIndex(
        classes=(),
        ids=Texts.of([VIDEO]),
        labels=Labels.of([()]),
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


def _write_frames(frames: np.ndarray, frames_per_second: float, path: Path) -> None:
    """Write frames, uint8 (T, H, W, 3), as a lossless video, so that they take the way of any file.

    Raises:
        UserError: the array is no video.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise UserError(f"frames are uint8 (T, H, W, 3); these are {frames.dtype} {frames.shape}.")
    height, width = frames.shape[1:3]
    command = [str(ffmpeg_executable()), "-nostdin", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-video_size", f"{width}x{height}", "-framerate", str(frames_per_second), "-i", "pipe:0"]
    command += ["-codec:v", "ffv1", "-pix_fmt", "bgr0", str(path)]
    result = subprocess.run(command, input=np.ascontiguousarray(frames).tobytes(), capture_output=True, check=False)
    if result.returncode != 0:
        raise UserError(f"{command[0]} could not store the frames: {result.stderr.decode(errors='replace').strip()}")


def array_rate(specification: TrainingSpecification, frames: FrameFormat, given: float | None) -> float:
    """Frames per second of an array: as given, else the rate that the network expects of frames."""
    wanted = (given, frames.frames_per_second, specification.recipe.sampling.frames_per_second)
    return next((rate for rate in wanted if rate is not None), DEFAULT_RATE)


@contextmanager
def indexed(
    video: str | Path | np.ndarray,
    specification: TrainingSpecification,
    frames: FrameFormat,
    num_threads: int,
    frames_per_second: float | None = None,
) -> Iterator[ClipIndex]:
    """A video, as its training's stages store it, in a folder that is removed afterwards: an index of one row.

    Args:
        video: a file that ffmpeg decodes, or frames, uint8 (T, H, W, 3).
        specification: of the training whose network shall see it.
        frames: how the training's frames were stored.
        num_threads: for decoding and flow.
        frames_per_second: of an array of frames; None: the rate at which its training's frames were stored, or else
            that at which its recipe counts strides, or else 25. A file says its own.

    Raises:
        UserError: the video cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="predict-") as name:
        folder = Path(name)
        if isinstance(video, np.ndarray):
            path = folder / "frames.mkv"
            _write_frames(video, array_rate(specification, frames, frames_per_second), path)
        else:
            path = Path(video)
            if not path.exists() or path.is_dir():
                raise UserError(f"{path}: there is no such file.")
        yield _extract(path, specification, frames, folder, num_threads)


@contextmanager
def indexed_frames(
    jpegs: Sequence[bytes],
    height: int,
    width: int,
    frames_per_second: float,
    specification: TrainingSpecification,
    frames: FrameFormat,
    num_threads: int,
) -> Iterator[ClipIndex]:
    """Frames that are encoded already, as a video of its own: an index of one row, in a folder that is removed.

    Args:
        jpegs: the frames as ``frames`` stores them.
        height: of each, pixels.
        width: of each, pixels.
        frames_per_second: of the stored frames.
        specification: of the training whose network shall see them.
        frames: how the training's frames were stored.
        num_threads: for flow.
    """
    with tempfile.TemporaryDirectory(prefix="predict-") as name:
        path = Path(name) / "frames.h5"
        parameters = {"frames": frames.model_dump(mode="json")}
        record = {"stage": "extract_frames", "digest": VIDEO, "parameters": parameters, "inputs": {}, "versions": {}}
        with ShardPart(path, VIDEO) as part:
            part.append(VIDEO, jpegs, height, width, frames_per_second)
            part.finish(record, [VIDEO])
        yield _index(path, specification, "the stream", num_threads)


def clip_outputs(trained: TrainedNetwork, index: ClipIndex, protocol: Protocol, forward: Forward) -> torch.Tensor:
    """What ``forward`` gives for the clips of the first video of an index, (num_clips, …) on the CPU."""
    specification = trained.specification
    clips = ProtocolClips(index, protocol, specification.recipe.sampling, [specification.modality])
    (found,) = video_outputs(clips, trained.computed(forward), trained.device)
    return torch.stack(list(found.outputs))


def clip_features(trained: TrainedNetwork, index: ClipIndex, protocol: Protocol, endpoint: str) -> torch.Tensor:
    """The activation at an endpoint for the clips of the first video of an index, float32 (num_clips, …)."""

    def forward(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        clip_BCTHW = batch[trained.specification.modality]
        found: torch.Tensor = trained.network.forward_features(clip_BCTHW, [endpoint])[endpoint]  # type: ignore[operator]
        return found.float().cpu()

    return clip_outputs(trained, index, protocol, forward)


def clip_probabilities(trained: TrainedNetwork, index: ClipIndex, protocol: Protocol) -> np.ndarray:
    """Softmax for the clips of the first video of an index, float64 (num_clips, num_classes)."""
    forward = TASK.forward(trained.network, trained.specification.modality)
    return softmax(clip_outputs(trained, index, protocol, forward).numpy())
