"""TV-L1 optical flow as a motion method."""

import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch

from pipeline_lib.configuration.data import Motion
from pipeline_lib.flow.methods import pair_indices
from pipeline_lib.flow.quantisation import Quantisation

MINIMUM_SIDE = 16


class OpenCVTVL1:
    """OpenCV's CPU implementation, a thread a pair."""

    colour = False
    versions = ("opencv-contrib-python-headless",)

    def __init__(self, kind: Motion, num_threads: int) -> None:
        self.parameters: dict[str, object] = dict(kind.parameters)
        self.quantisation = Quantisation(("u", "v"), kind.bound)
        self._pool = ThreadPoolExecutor(num_threads)
        self._local = threading.local()

    def pairs_per_call(self, height: int, width: int) -> int:
        """64 pairs, whatever their size."""
        del height, width
        return 64

    def _pair(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        # OpenCV lowers the object's number of scales for good after a small image: one object per size.
        objects = self._local.__dict__.setdefault("objects", {})
        if first.shape not in objects:
            objects[first.shape] = cv2.optflow.DualTVL1OpticalFlow_create()  # type: ignore[attr-defined]
        flow: np.ndarray = objects[first.shape].calc(first, second, None)
        return flow.transpose(2, 0, 1)

    def motion(self, frames: np.ndarray, gap: int) -> torch.Tensor:
        """See ``methods.MotionMethod``."""
        if min(frames.shape[1:3]) < MINIMUM_SIDE:
            raise ValueError(f"frames of {frames.shape[2]}×{frames.shape[1]} px; TV-L1 needs {MINIMUM_SIDE} px")
        pairs = pair_indices(len(frames), gap)
        fields = list(self._pool.map(lambda pair: self._pair(frames[pair[0]], frames[pair[1]]), pairs))
        return torch.from_numpy(np.stack(fields))


def create(kind: Motion, device: torch.device, num_threads: int) -> OpenCVTVL1:
    """See ``methods``."""
    del device
    return OpenCVTVL1(kind, num_threads)
