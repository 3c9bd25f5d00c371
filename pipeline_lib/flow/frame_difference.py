"""The difference of two frames: the simplest motion in MoDist's Table 3b."""

import numpy as np
import torch

from pipeline_lib.configuration.data import Motion
from pipeline_lib.configuration.messages import parsed
from pipeline_lib.configuration.motions import FrameDifferenceParameters
from pipeline_lib.flow.quantisation import Quantisation


class FrameDifference:
    """Grey frame t + gap minus grey frame t, in grey levels."""

    colour = False
    versions: tuple[str, ...] = ()

    def __init__(self, kind: Motion, device: torch.device) -> None:
        parsed(FrameDifferenceParameters, kind.parameters, f"motion method {kind.method}: parameters")
        self.parameters: dict[str, object] = {}
        self.quantisation = Quantisation(kind.channels, kind.bound, unit="grey")
        self._device = device

    def pairs_per_call(self, height: int, width: int) -> int:
        """256 pairs of any size."""
        del height, width
        return 256

    def motion(self, frames: np.ndarray, gap: int) -> torch.Tensor:
        """See ``methods.MotionMethod``; C = 1, values in [−255, 255]."""
        grey = torch.from_numpy(frames).to(self._device).float()[:, None]
        later_minus_earlier = grey[abs(gap) :] - grey[: -abs(gap)]
        return later_minus_earlier if gap > 0 else -later_minus_earlier


def create(kind: Motion, device: torch.device, num_threads: int) -> FrameDifference:
    """See ``methods``."""
    del num_threads
    return FrameDifference(kind, device)
