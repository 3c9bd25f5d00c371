"""Farneback's optical flow through OpenCV, with the parameters of R(2+1)D's code.

G. Farneback, "Two-frame motion estimation based on polynomial expansion", SCIA 2003. R(2+1)D (section 4.2) uses it
because it is fast; its released code (facebookresearch/VMZ) uses a pyramid of √2/2, 5 levels, a Gaussian window of 10,
2 iterations and polynomials over 7 px with σ 1.5.
"""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch

from pipeline_lib.configuration.data import Motion
from pipeline_lib.configuration.messages import parsed
from pipeline_lib.configuration.motions import FarnebackParameters
from pipeline_lib.flow.methods import pair_indices
from pipeline_lib.flow.quantisation import Quantisation

MINIMUM_SIDE = 16


class Farneback:
    """Computes each pair of grey frames in a thread."""

    colour = False
    versions = ("opencv-contrib-python-headless",)

    def __init__(self, kind: Motion, num_threads: int) -> None:
        self._values = parsed(FarnebackParameters, kind.parameters, f"motion method {kind.method}: parameters")
        self.parameters: dict[str, object] = self._values.model_dump()
        self.quantisation = Quantisation(kind.channels, kind.bound)
        self._pool = ThreadPoolExecutor(num_threads)

    def pairs_per_call(self, height: int, width: int) -> int:
        """64 pairs of any size, because each pair is computed alone."""
        del height, width
        return 64

    def _pair(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        values = self._values
        flow: np.ndarray = cv2.calcOpticalFlowFarneback(
            first,
            second,
            np.zeros((*first.shape, 2), dtype=np.float32),
            values.pyramid_scale,
            values.num_levels,
            values.window,
            values.num_iterations,
            values.polynomial_size,
            values.polynomial_sigma,
            cv2.OPTFLOW_FARNEBACK_GAUSSIAN if values.gaussian_window else 0,
        )
        return flow.transpose(2, 0, 1)

    def motion(self, frames: np.ndarray, gap: int) -> torch.Tensor:
        """See ``methods.MotionMethod``."""
        if min(frames.shape[1:3]) < MINIMUM_SIDE:
            raise ValueError(f"frames of {frames.shape[2]}×{frames.shape[1]} px; Farneback needs {MINIMUM_SIDE} px")
        pairs = pair_indices(len(frames), gap)
        fields = list(self._pool.map(lambda pair: self._pair(frames[pair[0]], frames[pair[1]]), pairs))
        return torch.from_numpy(np.stack(fields))


def create(kind: Motion, device: torch.device, num_threads: int) -> Farneback:
    """See ``methods``; OpenCV's Farneback runs on the CPU."""
    del device
    return Farneback(kind, num_threads)
