"""Folders of frames and flow as denseflow and MMAction2 write them, from a real clip; flow from OpenCV's DIS."""

import subprocess
from pathlib import Path

import cv2
import numpy as np

from pipeline_lib.media.ffmpeg import ffmpeg_executable

BOUND = 20.0


def denseflow_bytes(flow: np.ndarray, bound: float = BOUND) -> np.ndarray:
    """denseflow's ``convertFlowToImage``: cvRound(255 · (v + bound) / (2 · bound)), clipped; a half rounds to even."""
    return np.rint(255 * (np.clip(flow, -bound, bound) + bound) / (2 * bound)).astype(np.uint8)


def write_raw_frames(
    video: Path, folder: Path, num_frames: int = 12, start: float = 0.0, size: str = "96:64", flows: bool = True
) -> list[np.ndarray]:
    """Write ``img_00001.jpg`` … and the flow of each pair; returns the flow fields, (H, W, 2)."""
    folder.mkdir(parents=True)
    source = ["-ss", str(start), "-i", str(video), "-vf", f"scale={size}", "-frames:v", str(num_frames)]
    command = [ffmpeg_executable(), "-v", "error", *source, "-q:v", "3", str(folder / "img_%05d.jpg")]
    subprocess.run(command, check=True)
    frames = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(folder.glob("img_*.jpg"))]
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    fields = [method.calc(one, after, None) for one, after in zip(frames[:-1], frames[1:], strict=True)]
    for number, field in enumerate(fields if flows else [], 1):
        for name, plane in zip("xy", np.moveaxis(field, 2, 0), strict=True):
            cv2.imwrite(str(folder / f"flow_{name}_{number:05d}.jpg"), denseflow_bytes(plane))
    return fields
