"""Flow edges: where motion changes, whatever its direction (MoDist, sections 3.2 and 4.1).

These are the Sobel filter's responses to the magnitude of the flow from frame t to t − 5, clamped to [0, 10]. The flow
is that of RAFT trained on synthetic data only, or of another method here (``source``).
"""

import numpy as np
import torch
import torch.nn.functional as F

from pipeline_lib.configuration.data import Motion
from pipeline_lib.configuration.messages import parsed
from pipeline_lib.configuration.motions import FlowEdgesParameters
from pipeline_lib.flow.methods import create_method
from pipeline_lib.flow.quantisation import Quantisation


def sobel_magnitude(image: torch.Tensor) -> torch.Tensor:
    """√(Gx² + Gy²) of the 3×3 Sobel responses of (N, 1, H, W), borders repeated."""
    smooth = torch.tensor([1.0, 2.0, 1.0], device=image.device)
    slope = torch.tensor([-1.0, 0.0, 1.0], device=image.device)
    kernels = torch.stack([torch.outer(smooth, slope), torch.outer(slope, smooth)])[:, None]
    responses = F.conv2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), kernels)
    edges: torch.Tensor = torch.linalg.vector_norm(responses, dim=1, keepdim=True)
    return edges


class FlowEdges:
    """Flow edges as a motion method, one channel. The motion kind's bound (10 in MoDist) clamps them."""

    def __init__(self, kind: Motion, device: torch.device, num_threads: int) -> None:
        values = parsed(FlowEdgesParameters, kind.parameters, f"motion method {kind.method}: parameters")
        source = Motion(method=values.source, gap=kind.gap, parameters=values.source_parameters)
        self._source = create_method(source, device, num_threads)
        self.colour = self._source.colour
        self.versions = self._source.versions
        self.parameters: dict[str, object] = values.model_dump() | {"source_parameters": self._source.parameters}
        self.quantisation = Quantisation(kind.channels, kind.bound, zero=0, scale=255, unit="px/px")

    def pairs_per_call(self, height: int, width: int) -> int:
        """The number that the flow method takes."""
        return self._source.pairs_per_call(height, width)

    def motion(self, frames: np.ndarray, gap: int) -> torch.Tensor:
        """See ``methods.MotionMethod``; C = 1, values ≥ 0, clamped when they are quantised."""
        flow = self._source.motion(frames, gap)
        return sobel_magnitude(torch.linalg.vector_norm(flow, dim=1, keepdim=True))


def create(kind: Motion, device: torch.device, num_threads: int) -> FlowEdges:
    """See ``methods``."""
    return FlowEdges(kind, device, num_threads)
