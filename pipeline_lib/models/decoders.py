"""Decoders of optical flow from hidden features, and how they represent flow.

D3D, section 3.1 and Figure 3; its supplement, Figure 4.

No decoder has a temporal kernel: what it finds about motion is in the features already.
"""

from copy import deepcopy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.errors import UserError
from pipeline_lib.models.network import LOGITS, VideoNetwork

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
    """(u, v) → (magnitude, sin θ, cos θ), θ the angle from u to v; where there is no motion all three are 0."""
    u, v = flow_B2THW.unbind(1)
    magnitude = torch.hypot(u, v)
    safe = magnitude.clamp_min(torch.finfo(flow_B2THW.dtype).tiny)
    return torch.stack([magnitude, v / safe, u / safe], 1)


def polar_to_flow(polar_B3THW: Tensor) -> Tensor:
    """(magnitude, sin θ, cos θ) → (u, v); the angle is read from both parts, whatever their length."""
    magnitude, sine, cosine = polar_B3THW.unbind(1)
    length = torch.hypot(sine, cosine).clamp_min(torch.finfo(polar_B3THW.dtype).tiny)
    return torch.stack([magnitude * cosine / length, magnitude * sine / length], 1)


def endpoint_channels(network: VideoNetwork, endpoint: str) -> int:
    """Channels of an endpoint's features, from a forward pass without data.

    Raises:
        UserError: no such endpoint.
    """
    shadow = deepcopy(network).to("meta").eval()
    side = max(network.minimum_side, 32)
    clip = torch.empty(1, network.in_channels, network.num_frames or 16, side, side, device="meta")
    with torch.no_grad():
        return int(shadow.forward_features(clip, [endpoint])[endpoint].shape[1])


class FlowPredictor(nn.Module):
    """A network up to an endpoint, and a decoder on it: predicts the flow of a clip (D3D, Figure 2).

    Args:
        network: the network; its parameters train along unless the caller freezes them (section 3.2 does both).
        endpoint: where the decoder attaches; the papers' "3A" is ``MaxPool_3a_3x3``.
        kind: see ``FlowDecoder``.

    Raises:
        UserError: no such endpoint, or one without a spatial grid.
    """

    def __init__(self, network: VideoNetwork, endpoint: str, kind: DecoderKind) -> None:
        super().__init__()
        if endpoint == LOGITS:
            raise UserError("a flow decoder needs an endpoint with a spatial grid; logits have none")
        network.check_names([endpoint])
        self.network = network
        self.endpoint = endpoint
        self.decoder = FlowDecoder(kind, endpoint_channels(network, endpoint))

    def forward(self, clip_BCTHW: Tensor) -> Tensor:
        """(B, 3, T', H', W') of (B, C, T, H, W), T', H', W' the endpoint's."""
        features = self.network.forward_features(clip_BCTHW, [self.endpoint])[self.endpoint]
        prediction: Tensor = self.decoder(features)
        return prediction
