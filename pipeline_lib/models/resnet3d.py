"""The ResNet-3D family of R(2+1)D's paper: R2D, f-R2D, MCx, rMCx, R3D, R(2+1)D at 18 and 34 layers, from one table.

What varies is the kind of the convolutions per group (Figure 1). Blocks, widths and strides are Table 1's: the stem
strides over space only; conv3_1, conv4_1 and conv5_1 stride over space, and over time where the group convolves
over time (section 4.1: with 2D convolutions "downsampling becomes only spatial"). The widths of (2+1)D pairs and the
constants of batch normalisation (ε 10⁻³, a new batch's weight 0.1, Caffe2's momentum 0.9) are those of the authors'
release (facebookresearch/VMZ, c2/lib/models/builder/video_model.py).
"""

from typing import Any

from torch import Tensor, nn

from pipeline_lib.configuration.messages import parsed
from pipeline_lib.models.layers import ConvNorm, Triple, batch_norm
from pipeline_lib.models.network import ClipInput, PooledHead, StagedNetwork
from pipeline_lib.models.options import Kind, ResNetOptions, WidthRule

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


def build(num_classes: int, in_channels: int = 3, **options: Any) -> StagedNetwork:
    """Build a member of the family.

    Args:
        num_classes: width of the logits, ≥ 1.
        in_channels: 3 for RGB, 2 for flow.
        options: see ``ResNetOptions``.

    Returns:
        The network; its endpoints are Table 1's conv1, conv2_x … conv5_x.

    Raises:
        UserError: an option is unknown or out of its range.
    """
    given = parsed(ResNetOptions, options, "model.options")
    channels = in_channels * given.num_frames if given.fold_time else in_channels
    stages: dict[str, nn.Module] = {
        "conv1": Convolution(
            channels,
            given.width,
            7,
            (1, 2, 2),
            kind=given.kinds[0],
            middle=max(STEM_MIDDLE * given.width // 64, 1),
            activation=True,
            eps=given.batch_norm_eps,
            momentum=given.batch_norm_momentum,
        )
    }
    channels = given.width
    for index, (kind, num_blocks) in enumerate(zip(given.kinds[1:], BLOCKS[given.depth], strict=True)):
        out_channels = WIDTHS[index] * given.width // 64
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
                    width_rule=given.width_rule,
                    eps=given.batch_norm_eps,
                    momentum=given.batch_norm_momentum,
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
        PooledHead(channels, num_classes, given.dropout or 0.0),
        ClipInput(in_channels, given.num_frames if given.fold_time else None),
        num_classes,
        folds_time=given.fold_time,
    )
