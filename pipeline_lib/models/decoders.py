"""Decoders of optical flow from hidden features, and how they represent flow.

D3D, section 3.1 and Figure 3; its supplement, Figure 4.

No decoder has a temporal kernel, so all that it finds about motion must be in the features.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.errors import UserError

DecoderKind = Literal["simple", "spatial", "pwc"]
PWC_WIDTHS = (128, 128, 96, 64, 32)


class FlowDecoder(nn.Module):
    """Predicts (magnitude, sin θ, cos θ) at the resolution of the features.

    Args:
        kind: ``simple`` is one 3×(1×1×1) layer; ``spatial`` two C×(1×3×3) layers, then that; ``pwc`` six 1×3×3
            layers with 128, 128, 96, 64, 32 and 3 channels, PWC-Net's flow estimator without cost volume and warping.
        in_channels: C, channels of the features.
        dense: PWC-Net's dense connections (Sun et al., PWC-Net, section 3): each layer sees all earlier inputs too.

    Raises:
        UserError: an unknown kind.
    """

    def __init__(self, kind: DecoderKind, in_channels: int, *, dense: bool = True) -> None:
        super().__init__()
        widths: tuple[int, ...]
        if kind == "simple":
            widths, last = (), 1
        elif kind == "spatial":
            widths, last = (in_channels, in_channels), 1
        elif kind == "pwc":
            widths, last = PWC_WIDTHS, 3
        else:
            raise UserError(f"decoder {kind!r} is none of simple, spatial, pwc")
        self.dense = dense and kind == "pwc"
        # PWC-Net's activation is a leaky ReLU of slope 0.1; D3D names none for the Spatial decoder.
        self.slope = 0.1 if kind == "pwc" else 0.0
        self.hidden = nn.ModuleList()
        channels = in_channels
        for width in widths:
            self.hidden.append(nn.Conv3d(channels, width, (1, 3, 3), padding=(0, 1, 1)))
            channels = channels + width if self.dense else width
        self.output = nn.Conv3d(channels, 3, (1, last, last), padding=(0, last // 2, last // 2))

    def forward(self, features_BCTHW: Tensor) -> Tensor:
        """(B, 3, T, H, W): magnitude, sin θ, cos θ, none of them bounded."""
        x = features_BCTHW
        for layer in self.hidden:
            y = F.leaky_relu(layer(x), self.slope)
            x = torch.cat([x, y], 1) if self.dense else y
        prediction: Tensor = self.output(x)
        return prediction


def flow_to_polar(flow_B2THW: Tensor) -> Tensor:
    """(u, v) → (magnitude, sin θ, cos θ), θ the angle from u to v; without motion all three are 0."""
    u, v = flow_B2THW.unbind(1)
    magnitude = torch.hypot(u, v)
    safe = magnitude.clamp_min(torch.finfo(flow_B2THW.dtype).tiny)
    return torch.stack([magnitude, v / safe, u / safe], 1)


def polar_to_flow(polar_B3THW: Tensor) -> Tensor:
    """(magnitude, sin θ, cos θ) → (u, v); the angle is read from both parts, whatever their length."""
    magnitude, sine, cosine = polar_B3THW.unbind(1)
    length = torch.hypot(sine, cosine).clamp_min(torch.finfo(polar_B3THW.dtype).tiny)
    return torch.stack([magnitude * cosine / length, magnitude * sine / length], 1)
