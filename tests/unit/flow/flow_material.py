"""Frames, shards and flow fields that the flow tests share."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch

from pipeline_lib.configuration.data import Motion
from pipeline_lib.configuration.motions import TVL1Parameters
from pipeline_lib.configuration.specification import MotionSpecification
from pipeline_lib.flow.tvl1.torch_solver import pyramid, tvl1_from_pyramids
from pipeline_lib.media.shards import ShardPart


def read_flo(path: Path) -> np.ndarray:
    """The true flow of a pair, float32 (2, H, W), from Middlebury's .flo file."""
    return np.ascontiguousarray(cv2.readOpticalFlow(str(path)).transpose(2, 0, 1))


def defined_tvl1(first: torch.Tensor, second: torch.Tensor, parameters: TVL1Parameters) -> torch.Tensor:
    """TV-L1 by its definition: grey frames (B, 1, H, W) to flow (B, 2, H, W)."""
    return tvl1_from_pyramids(pyramid(first, parameters), pyramid(second, parameters), parameters)


def read_clip(path: Path, short_side: int, start: int, count: int) -> np.ndarray:
    """Frames of a real clip, BGR uint8 (count, H, W, 3), scaled so that the short side has ``short_side`` px."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while len(frames) < start + count:
        good, frame = capture.read()
        assert good, f"{path} has only {len(frames)} frames"
        frames.append(frame)
    capture.release()
    height, width = frames[0].shape[:2]
    scale = short_side / min(height, width)
    size = (round(width * scale), round(height * scale))
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames[start:]])


def textured(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth random texture, uint8 (H, W)."""
    noise = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return np.round(smooth * 255).astype(np.uint8)


def moving_frames(num_frames: int, height: int, width: int, step: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A texture that moves by ``step`` = (dx, dy) whole pixels a frame, cut from a larger one: uint8 (T, H, W)."""
    margin = num_frames * max(abs(step[0]), abs(step[1])) + 1
    large = textured(height + 2 * margin, width + 2 * margin, seed)
    cuts = []
    for t in range(num_frames):
        y, x = margin - t * step[1], margin - t * step[0]
        cuts.append(large[y : y + height, x : x + width])
    return np.stack(cuts)


def write_frames_shard(path: Path, videos: dict[str, Sequence[np.ndarray]], digest: str = "frames-digest") -> Path:
    """A frames shard of grey or RGB frames, as the frames stage writes it."""
    with ShardPart(path, digest) as part:
        for id, frames in videos.items():
            jpegs = []
            for frame in frames:
                rgb = frame if frame.ndim == 3 else np.repeat(frame[..., None], 3, axis=2)
                jpegs.append(simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality=95))
            part.append(id, jpegs, *frames[0].shape[:2], 25.0)
        part.finish({"digest": digest}, list(videos))
    return path


def specification(device: str = "cpu", **kind: object) -> MotionSpecification:
    """A motion specification as a rule passes it."""
    return MotionSpecification(
        dataset="set", frame_format="short64", motion="kind", motion_kind=Motion(**kind), device=device
    )
