"""A temporal stream on flow that the first layers of a 3D CNN predict from RGB, trained end to end.

D3D, section 4.1, "Flow as a Learnable Input Representation"; Table 6, "S3D-G with 3D CNN flow".
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.configuration.messages import parsed
from pipeline_lib.errors import UserError
from pipeline_lib.models import inception3d
from pipeline_lib.models.decoders import FlowDecoder
from pipeline_lib.models.network import LOGITS, ClipInput, StagedNetwork
from pipeline_lib.models.options import PredictedFlowOptions

PREDICTION, RESAMPLED = "predicted_flow", "resampled_flow"
# If (sin θ, cos θ) is shorter than this, the direction is uncertain, and the flow fades to 0.
SHORTEST = 1e-2


class FlowFromFirstLayers(nn.Module):
    """The layers of a network up to an endpoint, and a decoder on it.

    Args:
        network: the layers after the endpoint are left out.
        endpoint: "3A" in the paper.
        kind: of the decoder: the "Simple" one in section 4.1, the "PWC" one in section 5.6.

    Raises:
        UserError: no such endpoint.
    """

    def __init__(self, network: StagedNetwork, endpoint: str, kind: Literal["simple", "spatial", "pwc"]) -> None:
        super().__init__()
        network.check_names([endpoint])
        if endpoint == LOGITS:
            raise UserError("endpoint: flow is predicted from features with a spatial grid; logits have none")
        self.decoder = FlowDecoder(kind, network.endpoint_shapes([endpoint])[endpoint][0])
        names = list(network.stages)
        self.layers = nn.ModuleDict({name: network.stages[name] for name in names[: names.index(endpoint) + 1]})

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        """(B, 3, T', H', W'): magnitude in units of the bound, sin θ, cos θ."""
        x = clip_BCTHW
        for layer in self.layers.values():
            x = layer(x)
        prediction: Tensor = self.decoder(x)
        return prediction


class Resampling(nn.Module):
    """(magnitude, sin θ, cos θ) on a coarse grid → (u, v) on the clip's grid, which the temporal stream expects.

    Args:
        factors: how much finer the clip's grid is, over (T, H, W).
    """

    def __init__(self, factors: tuple[int, int, int]) -> None:
        super().__init__()
        self.factors = tuple(float(factor) for factor in factors)

    def forward(self, polar_B3THW: Tensor) -> Tensor:
        """(B, 2, T, H, W), trilinear, in [-1, 1]."""
        magnitude, sine, cosine = polar_B3THW.unbind(1)
        scale = magnitude * torch.rsqrt(sine.square() + cosine.square() + SHORTEST**2)
        flow = torch.stack([scale * cosine, scale * sine], 1)
        finer = F.interpolate(flow, scale_factor=self.factors, mode="trilinear", align_corners=False)
        return finer.clamp(-1.0, 1.0)


def _factors(network: StagedNetwork, endpoint: str) -> tuple[int, int, int]:
    """How much coarser an endpoint is than the clip, over (T, H, W)."""
    num_frames, side = 64, 224
    _, t, h, w = network.endpoint_shapes([endpoint], num_frames, side)[endpoint]
    return num_frames // t, side // h, side // w


def build(num_classes: int, in_channels: int = 3, **options: Any) -> StagedNetwork:
    """Build S3D-G's temporal stream on flow that another S3D-G's first layers predict.

    Its stages are ``predicted_flow`` (for a flow loss), ``resampled_flow``, and those of the temporal stream under
    their own names, so that it can start from a trained temporal stream.

    Args:
        num_classes: width of the logits, ≥ 1.
        in_channels: 3 for RGB, 2 for flow.
        options: see ``PredictedFlowOptions``.

    Raises:
        UserError: an option is unknown or out of its range.
    """
    given = parsed(PredictedFlowOptions, options, "model.options")

    def stream(num_channels: int) -> StagedNetwork:
        return inception3d.build(num_classes, num_channels, **given.stream.model_dump())

    temporal = stream(2)
    with torch.device("meta"):
        shadow = stream(in_channels)
    predictor = FlowFromFirstLayers(stream(in_channels), given.endpoint, given.decoder)
    stages = {PREDICTION: predictor, RESAMPLED: Resampling(_factors(shadow, given.endpoint))}
    network = StagedNetwork(
        {**stages, **temporal.stages},  # type: ignore[dict-item]
        temporal.head,
        ClipInput(in_channels),
        num_classes,
    )
    # The temporal stream that it starts from saw flow, so its normalisation does not apply to these RGB clips.
    network.added_parts = (f"stages.{PREDICTION}.", "input_scale", "input_shift")
    return network
