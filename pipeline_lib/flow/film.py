"""Flow of a video file to look at: a film of its colours beside the frames, its numbers, a comparison of methods."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from pipeline_lib.artefacts.atomic import atomic_path
from pipeline_lib.artefacts.hdf5 import new_hdf5
from pipeline_lib.containers import READING
from pipeline_lib.errors import UserError
from pipeline_lib.flow.colour import flow_to_rgb
from pipeline_lib.flow.endpoint_error import endpoint_error, summarise
from pipeline_lib.flow.methods import MotionMethod, pair_indices


def read_video(path: Path, short_side: int, maximum_frames: int) -> tuple[np.ndarray, float]:
    """Frames of a video, scaled down to ``short_side`` (smaller ones stay as they are).

    Returns:
        uint8 (T, H, W, 3) RGB, and frames per second.

    Raises:
        UserError: the file is absent, is not a video, or has fewer than two frames.
    """
    frames: list[np.ndarray] = []
    try:
        with av.open(f"file:{path}", options=READING) as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or 25)
            for frame in container.decode(stream):
                rgb = frame.to_ndarray(format="rgb24")
                turns = (round(getattr(frame, "rotation", 0) / 90)) % 4
                rgb = np.rot90(rgb, turns) if turns else rgb
                height, width = rgb.shape[:2]
                scale = min(1.0, short_side / min(height, width))
                size = (round(width * scale), round(height * scale))
                frames.append(cv2.resize(np.ascontiguousarray(rgb), size, interpolation=cv2.INTER_AREA))
                if len(frames) == maximum_frames:
                    break
    except (OSError, IndexError, av.FFmpegError) as error:
        if len(frames) < 2:
            raise UserError(f"{path} cannot be read as a video: {error}") from error
    if len(frames) < 2:
        raise UserError(f"{path} has {len(frames)} frame(s); flow needs two")
    return np.stack(frames), rate


def compute(method: MotionMethod, frames: np.ndarray, gap: int) -> np.ndarray:
    """Motion of RGB frames (T, H, W, 3), in pieces that fit the device: float32 (T − abs(gap), C, H, W).

    Raises:
        UserError: there are too few frames for the gap, or they are too small.
    """
    reach = abs(gap)
    num_pairs = len(frames) - reach
    if num_pairs < 1:
        raise UserError(f"{len(frames)} frames; a gap of {gap} needs {reach + 1}")
    source = frames if method.colour else np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])
    size = method.pairs_per_call(*frames.shape[1:3])
    try:
        pieces = [
            method.motion(source[start : min(start + size, num_pairs) + reach], gap).cpu().numpy()
            for start in range(0, num_pairs, size)
        ]
    except ValueError as error:
        raise UserError(str(error)) from error
    return np.concatenate(pieces)


def picture(field: np.ndarray, maximum: float) -> np.ndarray:
    """One motion field (C, H, W) as RGB uint8: the colour wheel for flow, grey for one channel (zero is mid-grey)."""
    if len(field) == 2:
        return flow_to_rgb(field, maximum)
    signed = field.min() < 0
    grey = field[0] / max(maximum, 1e-6) * (127 if signed else 255) + (128 if signed else 0)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def largest(fields: np.ndarray) -> float:
    """The length that gets full colour in a film: the 99th percentile, so that one outlier does not pale the rest."""
    return max(float(np.percentile(np.linalg.norm(fields, axis=1), 99)), 0.5)


def write_film(path: Path, pictures: Iterator[np.ndarray], frames_per_second: float) -> None:
    """Write RGB pictures (H, W, 3) of one size as an H.264 mp4, atomically."""
    with atomic_path(path) as temporary:
        with av.open(str(temporary), "w", format="mp4") as container:
            stream: Any = None
            for image in pictures:
                # 4:2:0 needs even sides.
                even = np.ascontiguousarray(image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2])
                if stream is None:
                    stream = container.add_stream("libx264", rate=max(1, round(frames_per_second)))
                    stream.height, stream.width = even.shape[:2]
                    stream.pix_fmt = "yuv420p"
                    stream.options = {"crf": "18"}
                for packet in stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")):
                    container.mux(packet)
            if stream is not None:
                for packet in stream.encode():
                    container.mux(packet)


def side_by_side(frames: np.ndarray, fields: np.ndarray, gap: int) -> Iterator[np.ndarray]:
    """Each frame beside the colours of its motion."""
    maximum = largest(fields)
    for (first, _), field in zip(pair_indices(len(frames), gap), fields, strict=True):
        yield np.concatenate([frames[first], picture(field, maximum)], axis=1)


def write_numbers(path: Path, fields: np.ndarray, attributes: dict[str, Any]) -> None:
    """Write motion (T, C, H, W) float32 as the dataset ``motion`` of an HDF5 file, atomically."""
    with atomic_path(path) as temporary, new_hdf5(temporary, 4 * fields.size) as file:
        file.create_dataset("motion", data=fields.astype(np.float32), compression="gzip", compression_opts=4)
        file.attrs.update(attributes)


def comparison(names: Sequence[str], fields: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """End-point errors of every field but the first against the first."""
    return [
        {"method": name, "reference": names[0]} | summarise(field, fields[0])
        for name, field in zip(names[1:], fields[1:], strict=True)
    ]


def comparison_picture(frame: np.ndarray, fields: Sequence[np.ndarray]) -> np.ndarray:
    """The frame and each method's colours; below, the end-point error against the first (white: ≥ 1 px)."""
    maximum = largest(np.stack(list(fields)))
    top = [frame, *(flow_to_rgb(field, maximum) for field in fields)]
    errors = [np.clip(endpoint_error(field, fields[0]), 0, 1) for field in fields]
    below = [np.zeros_like(frame)] + [np.repeat((error * 255).astype(np.uint8)[..., None], 3, 2) for error in errors]
    return np.concatenate([np.concatenate(top, axis=1), np.concatenate(below, axis=1)])
