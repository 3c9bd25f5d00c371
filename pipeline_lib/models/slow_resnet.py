"""Slow-only ResNets: MoDist's visual and motion pathways (MoDist, Table 1) and PySlowFast's Slow-R50, from one table.

What varies: the stem's temporal kernel and stride, the temporal kernel per group, the width, the depth, and whether
the motion pathway reads its frames stacked or one by one.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from pipeline_lib.errors import UserError
from pipeline_lib.models.layers import ConvNorm, PaddedMaxPool3d, Triple, batch_norm
from pipeline_lib.models.network import ClipInput, PooledHead, StagedNetwork

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
EXPANSION = {18: 1, 50: 4}


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
        projects = in_channels != out_channels or stride != 1
        self.shortcut = unit(in_channels, out_channels, (1, 1, 1), stride, False) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        """Transform (B, C, T, H, W)."""
        residual = x if self.shortcut is None else self.shortcut(x)
        out: Tensor = self.b(self.a(x))
        if self.c is not None:
            out = self.c(out)
        return out.add_(residual).relu_()


def build(
    num_classes: int,
    in_channels: int = 3,
    *,
    depth: Literal[18, 50] = 50,
    stem_kernel: int = 1,
    stem_temporal_stride: int = 1,
    temporal_kernels: Sequence[int] = (1, 1, 3, 3),
    width: int = 64,
    frames: Literal["clip", "stacked", "per_frame"] = "clip",
    num_frames: int = 16,
    num_hidden: int = 0,
    dropout: float = 0.5,
    batch_norm_momentum: float = 0.1,
    batch_norm_eps: float = 1e-5,
) -> StagedNetwork:
    """Build a visual or a motion pathway.

    Args:
        num_classes: width of the logits, or of the embedding if ``num_hidden`` makes the head a projection; ≥ 1.
        in_channels: channels of a frame.
        depth: 18 (basic blocks) or 50 (bottlenecks).
        stem_kernel: temporal kernel of conv1, odd: 5 in MoDist (section 3.3), 1 in PySlowFast.
        stem_temporal_stride: 2 in MoDist's Table 1, 1 in PySlowFast.
        temporal_kernels: temporal kernel of res2 … res5, odd; 3 in res4 and res5 of both.
        width: channels of conv1 and inside res2: 64, or 8 for the motion pathway (1/8, section 3.3).
        frames: ``clip`` convolves over a clip. ``stacked`` reads the frames as channels of one image (the text:
            "stacking 16 motion frames"); ``per_frame`` runs the 2D network on each frame and averages (Table 1's
            1×7² kernels). Both need ``temporal_kernels`` of 1.
        num_frames: clip length, for ``stacked`` only.
        num_hidden: hidden layers of a projection head; 0 is a linear classifier.
        dropout: probability of dropping a feature before the head's layers, in [0, 1).
        batch_norm_momentum: weight of a new batch in the running statistics.
        batch_norm_eps: ε of the batch normalisations.

    Returns:
        The network; its endpoints are conv1, pool1, res2 … res5.

    Raises:
        UserError: a value outside its range.
    """
    if num_classes < 1 or in_channels < 1 or width < 1 or num_frames < 1 or num_hidden < 0:
        raise UserError("num_classes, in_channels, width and num_frames must be at least 1, num_hidden at least 0")
    if depth not in BLOCKS or len(temporal_kernels) != 4 or any(k % 2 == 0 for k in (*temporal_kernels, stem_kernel)):
        raise UserError(
            f"depth must be 18 or 50 and the kernels odd, four for res2 … res5; got {depth}, {list(temporal_kernels)} "
            f"and stem {stem_kernel}"
        )
    if frames != "clip" and (set(temporal_kernels) | {stem_kernel, stem_temporal_stride}) != {1}:
        raise UserError(f"frames: {frames} is a 2D network; its temporal kernels and stride must be 1")
    if not 0 <= dropout < 1:
        raise UserError(f"dropout must lie in [0, 1), not {dropout}")
    stacked = frames == "stacked"
    norm = batch_norm(width, eps=batch_norm_eps, momentum=batch_norm_momentum)
    stem_channels = in_channels * num_frames if stacked else in_channels
    stages: dict[str, nn.Module] = {
        "conv1": ConvNorm(stem_channels, width, (stem_kernel, 7, 7), (stem_temporal_stride, 2, 2), norm=norm),
        "pool1": PaddedMaxPool3d((1, 3, 3), (1, 2, 2)),
    }
    channels = width
    for index, (num_blocks, temporal_kernel) in enumerate(zip(BLOCKS[depth], temporal_kernels, strict=True)):
        inner = width * 2**index
        out_channels = inner * EXPANSION[depth]
        blocks: list[nn.Module] = []
        for block in range(num_blocks):
            blocks.append(
                ResidualBlock(
                    channels,
                    inner,
                    out_channels,
                    temporal_kernel,
                    2 if block == 0 and index > 0 else 1,
                    bottleneck=depth == 50,
                    eps=batch_norm_eps,
                    momentum=batch_norm_momentum,
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
        PooledHead(channels, num_classes, dropout, num_hidden),
        ClipInput(in_channels, num_frames if stacked else None),
        num_classes,
        folds_time=stacked,
    )
