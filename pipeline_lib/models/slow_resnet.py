"""Slow-only ResNets: MoDist's visual and motion pathways (MoDist, Table 1) and PySlowFast's Slow-R50, from one table.

What varies: the stem's temporal kernel and stride, the temporal kernel per group, the width, the depth, and whether
the motion pathway reads its frames stacked or one by one.
"""

from typing import Any

from torch import Tensor, nn

from pipeline_lib.configuration.messages import parsed
from pipeline_lib.models.layers import ConvNorm, PaddedMaxPool3d, Triple, batch_norm
from pipeline_lib.models.network import ClipInput, PooledHead, StagedNetwork
from pipeline_lib.models.options import SlowOptions

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
EXPANSION = {18: 1, 34: 1, 50: 4}


class ResidualBlock(nn.Module):
    """A bottleneck (T×1×1, 1×3×3, 1×1×1) or a basic block (T×3×3, 1×3×3), as PySlowFast's ``resnet_helper.py``.

    The spatial stride lies on the bottleneck's 1×3×3 and on the basic block's first convolution.

    Args:
        in_channels: channels of the input.
        inner: channels inside.
        out_channels: channels of the output.
        temporal_kernel: T, odd.
        stride: spatial stride.
        bottleneck: which of the two blocks.
        zero_init_final_norm: whether the scale of the last normalisation starts at 0 (``transform_final_bn`` there).
        eps: ε of the normalisations.
        momentum: weight of a new batch in their running statistics.
    """

    def __init__(
        self,
        in_channels: int,
        inner: int,
        out_channels: int,
        temporal_kernel: int,
        stride: int,
        *,
        bottleneck: bool,
        zero_init_final_norm: bool,
        eps: float,
        momentum: float,
    ) -> None:
        super().__init__()

        def unit(c_in: int, c_out: int, kernel: Triple, step: int, activation: bool) -> ConvNorm:
            norm = batch_norm(c_out, eps=eps, momentum=momentum)
            return ConvNorm(c_in, c_out, kernel, (1, step, step), norm=norm, activation=activation)

        t = temporal_kernel
        if bottleneck:
            self.a = unit(in_channels, inner, (t, 1, 1), 1, True)
            self.b = unit(inner, inner, (1, 3, 3), stride, True)
            self.c: ConvNorm | None = unit(inner, out_channels, (1, 1, 1), 1, False)
        else:
            self.a = unit(in_channels, out_channels, (t, 3, 3), stride, True)
            self.b = unit(out_channels, out_channels, (1, 3, 3), 1, False)
            self.c = None
        last = self.b if self.c is None else self.c
        if zero_init_final_norm and last.norm is not None:
            nn.init.zeros_(last.norm.weight)
        projects = in_channels != out_channels or stride != 1
        self.shortcut = unit(in_channels, out_channels, (1, 1, 1), stride, False) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        """Transform (B, C, T, H, W)."""
        residual = x if self.shortcut is None else self.shortcut(x)
        out: Tensor = self.b(self.a(x))
        if self.c is not None:
            out = self.c(out)
        return out.add_(residual).relu_()


def build(num_classes: int, in_channels: int = 3, **options: Any) -> StagedNetwork:
    """Build a visual or a motion pathway.

    Args:
        num_classes: width of the logits, ≥ 1.
        in_channels: 3 for RGB, 2 for flow.
        options: see ``SlowOptions``.

    Returns:
        The network; its endpoints are conv1, pool1, res2 … res5.

    Raises:
        UserError: an option is unknown or out of its range.
    """
    given = parsed(SlowOptions, options, "model.options")
    stacked = given.frames == "stacked"
    norm = batch_norm(given.width, eps=given.batch_norm_eps, momentum=given.batch_norm_momentum)
    stem_channels = in_channels * given.num_frames if stacked else in_channels
    stages: dict[str, nn.Module] = {
        "conv1": ConvNorm(
            stem_channels, given.width, (given.stem_kernel, 7, 7), (given.stem_temporal_stride, 2, 2), norm=norm
        ),
        "pool1": PaddedMaxPool3d((1, 3, 3), (1, 2, 2)),
    }
    channels = given.width
    for index, (num_blocks, temporal_kernel) in enumerate(
        zip(BLOCKS[given.depth], given.temporal_kernels, strict=True)
    ):
        inner = given.width * 2**index
        out_channels = inner * EXPANSION[given.depth]
        blocks: list[nn.Module] = []
        for block in range(num_blocks):
            blocks.append(
                ResidualBlock(
                    channels,
                    inner,
                    out_channels,
                    temporal_kernel,
                    2 if block == 0 and index > 0 else 1,
                    bottleneck=given.depth == 50,
                    zero_init_final_norm=given.zero_init_final_norm,
                    eps=given.batch_norm_eps,
                    momentum=given.batch_norm_momentum,
                )
            )
            channels = out_channels
        stages[f"res{index + 2}"] = nn.Sequential(*blocks)
    for stage in stages.values():
        for module in stage.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return StagedNetwork(
        stages,
        PooledHead(channels, num_classes, given.dropout or 0.0, given.num_hidden),
        ClipInput(in_channels, given.num_frames if stacked else None),
        num_classes,
        folds_time=stacked,
    )
