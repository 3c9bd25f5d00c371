"""The Inception-3D family of S3D-G's paper and the non-local S3D-G of D3D's supplement, from one table.

Layer K of Figure 2 counts the eleven spatio-temporal layers from the pixels up: 0 is the stem, 1 is ``Conv2d_2c_3x3``,
2 … 10 are the nine Mixed blocks. ``first_temporal_layer`` and ``last_temporal_layer`` are both inclusive: a layer
between them convolves over time, every other layer is 2D.

Constants: widths and endpoint names of Inception v1 as in TF-slim ``research/slim/nets/s3dg.py``; batch
normalisation ε 10⁻³, decay 0.999, no scale; weights truncated normal, σ 0.01; the temporal half of a separable
convolution without normalisation, with a bias, starting as the identity (``i3d_utils.py``).
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.configuration.messages import parsed
from pipeline_lib.models.layers import ConvNorm, PaddedMaxPool3d, SelfGate, Triple, batch_norm
from pipeline_lib.models.network import ClipInput, StagedNetwork
from pipeline_lib.models.nonlocal_block import NonLocal
from pipeline_lib.models.options import GatePooling, Gates, InceptionOptions, Padding

# Widths: branch 0; branch 1 reduce, out; branch 2 reduce, out; branch 3.
MIXED: dict[str, tuple[int, int, int, int, int, int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
# Pool before a block: kernel and stride over (T, H, W).
POOLS: dict[str, tuple[str, Triple, Triple]] = {
    "Conv2d_2b_1x1": ("MaxPool_2a_3x3", (1, 3, 3), (1, 2, 2)),
    "Mixed_3b": ("MaxPool_3a_3x3", (1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ("MaxPool_4a_3x3", (3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ("MaxPool_5a_2x2", (2, 2, 2), (2, 2, 2)),
}
TEMPORAL_LAYERS: tuple[str, ...] = ("Conv2d_1a_7x7", "Conv2d_2c_3x3", *MIXED)
LAST_LAYER = len(TEMPORAL_LAYERS) - 1


@dataclass(frozen=True)
class Convention:
    """How an implementation builds its layers: slim's or torchvision's."""

    padding: Padding
    temporal_norm: bool
    norm_scale: bool
    eps: float
    momentum: float
    gates: Gates
    gate_bias: bool
    gate_pooling: GatePooling

    def norm(self, channels: int) -> nn.BatchNorm3d:
        """A batch normalisation of this convention."""
        return batch_norm(channels, eps=self.eps, momentum=self.momentum, scale=self.norm_scale)

    def gate(self, channels: int) -> SelfGate:
        """A gate of this convention."""
        return SelfGate(channels, bias=self.gate_bias, pooling=self.gate_pooling)


class SpatioTemporalLayer(nn.Module):
    """One convolutional layer: 2D, full 3D, or spatial then temporal (S3D-G, section 4.4), then a gate if wanted (4.6).

    A gate follows the layer's last ReLU, as in the released code; the paper does not say on which side of it.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: side of the spatial window.
        temporal_kernel: length of the temporal window; 1 makes the layer 2D.
        stride: (T, H, W).
        separable: whether the temporal window is a convolution of its own.
        gated: whether a self-gate follows, whatever the layer is; with the convention's ``temporal_convolutions`` one
            follows every separable layer.
        convention: see ``Convention``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        temporal_kernel: int,
        stride: Triple,
        *,
        separable: bool,
        gated: bool,
        convention: Convention,
    ) -> None:
        super().__init__()
        padding = convention.padding
        split = separable and temporal_kernel > 1
        first_kernel = (1 if split else temporal_kernel, kernel, kernel)
        first_stride = (1 if split else stride[0], stride[1], stride[2])
        norm = convention.norm(out_channels)
        self.spatial = ConvNorm(in_channels, out_channels, first_kernel, first_stride, norm=norm, padding=padding)
        self.temporal = (
            ConvNorm(
                out_channels,
                out_channels,
                (temporal_kernel, 1, 1),
                (stride[0], 1, 1),
                norm=convention.norm(out_channels) if convention.temporal_norm else None,
                padding=padding,
            )
            if split
            else None
        )
        gated = gated or (split and convention.gates == "temporal_convolutions")
        self.gate = convention.gate(out_channels) if gated else None

    def forward(self, x: Tensor) -> Tensor:
        """Transform (B, C, T, H, W)."""
        x = self.spatial(x)
        if self.temporal is not None:
            x = self.temporal(x)
        if self.gate is not None:
            x = self.gate(x)
        return x


class Branch(nn.Module):
    """A branch of a Mixed block: its layers under slim's names, in order."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        """Transform (B, C, T, H, W)."""
        for layer in self.children():
            x = layer(x)
        return x


class Mixed(nn.Module):
    """An Inception block (S3D-G, Figure 3): four branches side by side, concatenated over the channels."""

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, ...],
        *,
        temporal: bool,
        temporal_branches: int,
        branch_2_kernel: int,
        separable: bool,
        convention: Convention,
    ) -> None:
        super().__init__()
        w0, w1_reduce, w1, w2_reduce, w2, w3 = widths
        t = 3 if temporal else 1
        # Footnote 5: a separable temporal convolution may also follow the two branches of 1×1×1 convolutions.
        t_pointwise = t if temporal_branches == 4 and separable else 1

        def layer(c_in: int, c_out: int, kernel: int, t_kernel: int, gate: bool) -> SpatioTemporalLayer:
            return SpatioTemporalLayer(
                c_in, c_out, kernel, t_kernel, (1, 1, 1), separable=separable, gated=gate, convention=convention
            )

        gated = convention.gates == "branches"
        t2 = t if branch_2_kernel > 1 or separable else 1
        self.Branch_0 = Branch(Conv2d_0a_1x1=layer(in_channels, w0, 1, t_pointwise, gated))
        self.Branch_1 = Branch(
            Conv2d_0a_1x1=layer(in_channels, w1_reduce, 1, 1, False), Conv2d_0b_3x3=layer(w1_reduce, w1, 3, t, gated)
        )
        self.Branch_2 = Branch(
            Conv2d_0a_1x1=layer(in_channels, w2_reduce, 1, 1, False),
            Conv2d_0b_3x3=layer(w2_reduce, w2, branch_2_kernel, t2, gated),
        )
        self.Branch_3 = Branch(
            MaxPool_0a_3x3=PaddedMaxPool3d((t, 3, 3), (1, 1, 1), convention.padding),
            Conv2d_0b_1x1=layer(in_channels, w3, 1, t_pointwise, gated),
        )
        self.gate = convention.gate(w0 + w1 + w2 + w3) if convention.gates == "blocks" else None

    def forward(self, x: Tensor) -> Tensor:
        """Transform (B, C, T, H, W)."""
        x = torch.cat([self.Branch_0(x), self.Branch_1(x), self.Branch_2(x), self.Branch_3(x)], 1)
        return x if self.gate is None else self.gate(x)


class InceptionHead(nn.Module):
    """Average pool (t×7×7, stride 1), dropout, 1×1×1 convolution, mean over what remains (slim ``s3dg.py``).

    If the input is smaller than the window, the window shrinks, so that small clips work.
    """

    def __init__(self, in_channels: int, num_classes: int, dropout: float, temporal_kernel: int) -> None:
        super().__init__()
        self.temporal_kernel = temporal_kernel
        self.dropout = nn.Dropout(dropout)
        self.conv = nn.Conv3d(in_channels, num_classes, 1)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Logits (B, num_classes) of features (B, C, T, H, W)."""
        t, h, w = x_BCTHW.shape[2:]
        pooled = F.avg_pool3d(x_BCTHW, (min(self.temporal_kernel, t), min(7, h), min(7, w)), 1)
        logits: Tensor = self.conv(self.dropout(pooled)).mean((2, 3, 4))
        return logits


def initialise(network: nn.Module) -> None:
    """Slim's initial weights: truncated normal σ 0.01 (cut at 2σ), temporal convolutions the identity."""
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv3d):
            continue
        if name.endswith("temporal.conv") and module.bias is not None:
            nn.init.dirac_(module.weight)
            nn.init.zeros_(module.bias)
        elif name.startswith("head"):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        elif not name.startswith("stages.NonLocal"):
            nn.init.trunc_normal_(module.weight, std=0.01, a=-0.02, b=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def build(num_classes: int, in_channels: int = 3, **options: Any) -> StagedNetwork:
    """Build a member of the family.

    Args:
        num_classes: width of the logits, ≥ 1.
        in_channels: 3 for RGB, 2 for flow.
        options: see ``InceptionOptions``.

    Returns:
        The network, with slim's endpoint names.

    Raises:
        UserError: an option is unknown or out of its range.
    """
    given = parsed(InceptionOptions, options, "model.options")
    torchvision_like = given.variant == "torchvision"
    convention = Convention(
        padding=given.padding or ("symmetric" if torchvision_like else "same"),
        temporal_norm=torchvision_like,
        norm_scale=torchvision_like if given.norm_scale is None else given.norm_scale,
        eps=given.batch_norm_eps,
        momentum=given.batch_norm_momentum,
        gates=given.gates,
        gate_bias=given.gate_bias,
        gate_pooling=given.gate_pooling,
    )
    separable = given.convolution == "separable"
    is_temporal = {
        name: given.first_temporal_layer <= index <= given.last_temporal_layer
        for index, name in enumerate(TEMPORAL_LAYERS)
    }

    def depth(channels: int) -> int:
        return max(int(channels * given.depth_multiplier), given.minimum_depth)

    stages: dict[str, nn.Module] = {}

    def add_pool_before(name: str) -> None:
        pool, kernel, stride = POOLS[name]
        if not given.temporal_stride:
            kernel, stride = (1, *kernel[1:]), (1, *stride[1:])
        stages[pool] = PaddedMaxPool3d(kernel, stride, convention.padding)

    stem_time = given.stem_kernel if is_temporal["Conv2d_1a_7x7"] else 1
    stages["Conv2d_1a_7x7"] = SpatioTemporalLayer(
        in_channels,
        depth(64),
        7,
        stem_time,
        (2 if given.temporal_stride else 1, 2, 2),
        separable=given.separable_stem,
        gated=False,
        convention=convention,
    )
    add_pool_before("Conv2d_2b_1x1")
    stages["Conv2d_2b_1x1"] = SpatioTemporalLayer(
        depth(64), depth(64), 1, 1, (1, 1, 1), separable=False, gated=False, convention=convention
    )
    stages["Conv2d_2c_3x3"] = SpatioTemporalLayer(
        depth(64),
        depth(192),
        3,
        3 if is_temporal["Conv2d_2c_3x3"] else 1,
        (1, 1, 1),
        separable=separable,
        gated=given.gates in ("branches", "blocks"),
        convention=convention,
    )
    channels = depth(192)
    for name, widths in MIXED.items():
        if name in POOLS:
            add_pool_before(name)
        if given.non_local and name in ("Mixed_5b", "Mixed_5c"):
            stages[name.replace("Mixed", "NonLocal")] = NonLocal(channels)
        scaled = tuple(depth(width) for width in widths)
        stages[name] = Mixed(
            channels,
            scaled,
            temporal=is_temporal[name],
            temporal_branches=given.temporal_branches,
            branch_2_kernel=given.branch_2_kernel,
            separable=separable,
            convention=convention,
        )
        channels = scaled[0] + scaled[2] + scaled[4] + scaled[5]
    # Fig. 2: the average pool spans two time steps where the last blocks are 3D, one where they are 2D.
    head = InceptionHead(channels, num_classes, given.dropout or 0.0, 2 if is_temporal["Mixed_5c"] else 1)
    network = StagedNetwork(stages, head, ClipInput(in_channels), num_classes)
    initialise(network)
    return network
