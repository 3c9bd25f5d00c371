"""The ResNet-3D family of R(2+1)D's paper: R2D, f-R2D, MCx, rMCx, R3D, R(2+1)D at 18 and 34 layers, from one table.

What varies is the kind of the convolutions per group (Figure 1). Blocks, widths and strides are Table 1's: the stem
strides over space only; conv3_1, conv4_1 and conv5_1 stride over space, and over time where the group convolves
over time (section 4.1: with 2D convolutions "downsampling becomes only spatial").
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from pipeline_lib.errors import UserError
from pipeline_lib.models.layers import ConvNorm, Triple, batch_norm
from pipeline_lib.models.network import ClipInput, PooledHead, StagedNetwork

Kind = Literal["2d", "3d", "2plus1d"]
WidthRule = Literal["torchvision", "per_convolution"]
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)
GROUPS = ("conv1", "conv2_x", "conv3_x", "conv4_x", "conv5_x")
# Width between the stem's 1×7×7 and 3×1×1; the formula would give 83 (facebookresearch/VMZ, torchvision).
STEM_MIDDLE = 45


def middle_width(in_channels: int, out_channels: int, t: int = 3, d: int = 3) -> int:
    """M of section 3.5: the (2+1)D pair then has about as many weights as the t×d×d convolution that it replaces."""
    return (t * d * d * in_channels * out_channels) // (d * d * in_channels + t * out_channels)


class Convolution(nn.Module):
    """A 2D, 3D or (2+1)D convolution with its normalisations; between the (2+1)D halves lies a ReLU (section 3.5).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: side of the spatial window; the temporal one is 3, or 1 for ``2d``.
        stride: (T, H, W); the temporal part must be 1 for ``2d``.
        kind: what varies.
        middle: M, for ``2plus1d``.
        activation: whether a ReLU follows.
        eps: ε of the normalisations.
        momentum: weight of a new batch in their running statistics.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: Triple,
        *,
        kind: Kind,
        middle: int,
        activation: bool,
        eps: float,
        momentum: float,
    ) -> None:
        super().__init__()
        factorised = kind == "2plus1d"
        width = middle if factorised else out_channels
        self.spatial = ConvNorm(
            in_channels,
            width,
            (3 if kind == "3d" else 1, kernel, kernel),
            (1, *stride[1:]) if factorised else stride,
            norm=batch_norm(width, eps=eps, momentum=momentum),
            activation=factorised or activation,
        )
        self.temporal = (
            ConvNorm(
                width,
                out_channels,
                (3, 1, 1),
                (stride[0], 1, 1),
                norm=batch_norm(out_channels, eps=eps, momentum=momentum),
                activation=activation,
            )
            if factorised
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform (B, C, T, H, W)."""
        x = self.spatial(x)
        return x if self.temporal is None else self.temporal(x)


class BasicBlock(nn.Module):
    """relu(x + F(x)) with two convolutions (R(2+1)D, equation 1); the shortcut projects where the shape changes."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: Triple,
        *,
        kind: Kind,
        width_rule: WidthRule,
        eps: float,
        momentum: float,
    ) -> None:
        super().__init__()
        first = middle_width(in_channels, out_channels)
        # torchvision gives both convolutions the first one's M; the paper's formula gives each its own.
        second = first if width_rule == "torchvision" else middle_width(out_channels, out_channels)

        def convolution(c_in: int, step: Triple, middle: int, activation: bool) -> Convolution:
            return Convolution(
                c_in,
                out_channels,
                3,
                step,
                kind=kind,
                middle=middle,
                activation=activation,
                eps=eps,
                momentum=momentum,
            )

        self.conv1 = convolution(in_channels, stride, first, True)
        self.conv2 = convolution(out_channels, (1, 1, 1), second, False)
        projects = in_channels != out_channels or stride != (1, 1, 1)
        self.shortcut = (
            ConvNorm(
                in_channels,
                out_channels,
                (1, 1, 1),
                stride,
                norm=batch_norm(out_channels, eps=eps, momentum=momentum),
                activation=False,
            )
            if projects
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform (B, C, T, H, W)."""
        residual = x if self.shortcut is None else self.shortcut(x)
        out: Tensor = self.conv2(self.conv1(x))
        return out.add_(residual).relu_()


def build(
    num_classes: int,
    in_channels: int = 3,
    *,
    kinds: Sequence[Kind] = ("3d",) * 5,
    depth: Literal[18, 34] = 18,
    fold_time: bool = False,
    num_frames: int = 8,
    width_rule: WidthRule = "torchvision",
    width: int = 64,
    dropout: float = 0.0,
    batch_norm_momentum: float = 0.1,
    batch_norm_eps: float = 1e-5,
) -> StagedNetwork:
    """Build a member of the family.

    Args:
        num_classes: width of the logits, ≥ 1.
        in_channels: 3 for RGB, 2 for flow.
        kinds: ``2d``, ``3d`` or ``2plus1d`` for conv1, conv2_x … conv5_x.
        depth: 18 or 34 layers.
        fold_time: R2D (section 3.1): the frames are channels of the first layer, after which there is no time axis.
        num_frames: frames of a clip, for R2D only: its first layer is as wide as the clip is long.
        width_rule: M of the (2+1)D pairs, per block as in torchvision or per convolution as in section 3.5.
        width: channels of the stem and conv2_x; the later groups double it. Less than 64 is for demonstrations.
        dropout: probability of dropping a feature before the classifier, in [0, 1); R(2+1)D has none.
        batch_norm_momentum: weight of a new batch in the running statistics.
        batch_norm_eps: torchvision's; VMZ has 1e-3.

    Returns:
        The network; its endpoints are Table 1's conv1, conv2_x … conv5_x.

    Raises:
        UserError: a value outside its range.
    """
    if num_classes < 1 or in_channels < 1 or width < 1 or num_frames < 1:
        raise UserError("num_classes, in_channels, width and num_frames must be at least 1")
    if depth not in BLOCKS or len(kinds) != 5 or set(kinds) - {"2d", "3d", "2plus1d"}:
        raise UserError(f"depth must be 18 or 34 and kinds five of 2d, 3d, 2plus1d; got {depth} and {list(kinds)}")
    if not 0 <= dropout < 1:
        raise UserError(f"dropout must lie in [0, 1), not {dropout}")
    channels = in_channels * num_frames if fold_time else in_channels
    stages: dict[str, nn.Module] = {
        "conv1": Convolution(
            channels,
            width,
            7,
            (1, 2, 2),
            kind=kinds[0],
            middle=max(STEM_MIDDLE * width // 64, 1),
            activation=True,
            eps=batch_norm_eps,
            momentum=batch_norm_momentum,
        )
    }
    channels = width
    for index, (kind, num_blocks) in enumerate(zip(kinds[1:], BLOCKS[depth], strict=True)):
        out_channels = WIDTHS[index] * width // 64
        step = 1 if index == 0 else 2
        stride = (1 if kind == "2d" else step, step, step)
        blocks: list[nn.Module] = []
        for _ in range(num_blocks):
            blocks.append(
                BasicBlock(
                    channels,
                    out_channels,
                    stride,
                    kind=kind,
                    width_rule=width_rule,
                    eps=batch_norm_eps,
                    momentum=batch_norm_momentum,
                )
            )
            channels, stride = out_channels, (1, 1, 1)
        stages[GROUPS[index + 1]] = nn.Sequential(*blocks)
    for stage in stages.values():
        for module in stage.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return StagedNetwork(
        stages,
        PooledHead(channels, num_classes, dropout),
        ClipInput(in_channels, num_frames if fold_time else None),
        num_classes,
        folds_time=fold_time,
    )
