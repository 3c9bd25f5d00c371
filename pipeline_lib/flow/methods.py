"""The motion methods by name, and what the stage expects from each.

A method is a module with ``create(kind, device, num_threads) -> MotionMethod``. The stage imports only the method that
its specification names, and its fingerprint (``flow.code``) covers only that one: an edit to RAFT does not rerun TV-L1.
"""

import importlib
from typing import Protocol

import numpy as np
import torch

from pipeline_lib.configuration.data import Motion
from pipeline_lib.configuration.motions import METHODS
from pipeline_lib.flow.quantisation import Quantisation


class MotionMethod(Protocol):
    """Computes the motion of consecutive pairs of frames.

    Attributes:
        quantisation: how the values are stored.
        colour: whether ``motion`` takes RGB frames (N, H, W, 3) rather than grey ones (N, H, W).
        versions: packages whose versions can change the values.
        parameters: every parameter, defaults included, as plain data.
    """

    quantisation: Quantisation
    colour: bool
    versions: tuple[str, ...]
    parameters: dict[str, object]

    def pairs_per_call(self, height: int, width: int) -> int:
        """How many pairs one call should get: enough to keep the device busy, few enough for its memory."""
        ...

    def motion(self, frames: np.ndarray, gap: int) -> torch.Tensor:
        """Motion between frames ``gap`` apart.

        Args:
            frames: uint8 (N, H, W) grey or (N, H, W, 3) RGB, N > abs(gap).
            gap: from frame t to t + gap; negative looks back.

        Returns:
            float32 (N − abs(gap), C, H, W) on the method's device, in the quantisation's unit. Row i belongs to frame
            i for a positive gap and to frame i + abs(gap) for a negative one. C = 2 is (u, v): a point at (x, y) of
            frame t is at (x + u, y + v) in frame t + gap.

        Raises:
            ValueError: the frames cannot be used (too small).
        """
        ...


def create_method(kind: Motion, device: torch.device, num_threads: int) -> MotionMethod:
    """Make the method that a motion kind names.

    Raises:
        UserError: its parameters are wrong, or weights that it needs are missing.
    """
    module = importlib.import_module(METHODS[kind.method].module)
    method: MotionMethod = module.create(kind, device, num_threads)
    return method


def pair_indices(num_frames: int, gap: int) -> list[tuple[int, int]]:
    """(from, to) of every pair that ``motion`` computes for ``num_frames`` frames, in order."""
    if gap > 0:
        return [(t, t + gap) for t in range(num_frames - gap)]
    return [(t, t + gap) for t in range(-gap, num_frames)]
