"""Convolution, normalisation and pooling of all networks, with TensorFlow's 'SAME' padding if wanted."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.models.options import GatePooling, Padding

Triple = tuple[int, int, int]


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis under TensorFlow's 'SAME'.

    The output has ceil(size / stride) positions; an odd number of zeros puts the extra one at the end, so that a
    window of an even-sized input starts elsewhere than with PyTorch's symmetric padding (TensorFlow,
    ``tensorflow/core/framework/common_shape_fns.cc``, GetWindowedOutputSizeVerbose).

    Args:
        size: length of the axis.
        kernel: length of the window.
        stride: step of the window.

    Returns:
        (before, after), both ≥ 0.
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class PaddedConv3d(nn.Conv3d):
    """A 3D convolution whose padding is symmetric (kernel // 2) or TensorFlow's 'SAME'.

    On the CPU, a convolution over time alone (k×1×1, 1×1×1) runs as a 2D one over (T, H·W), and one over space alone
    (1×k×k) as a 2D one over the frames. The sums are the same, and oneDNN's 2D kernels are up to three times as fast as
    its 3D ones (benchmarks/training_step.py).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Triple,
        stride: Triple = (1, 1, 1),
        *,
        bias: bool = False,
        padding: Padding = "symmetric",
    ) -> None:
        half = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        super().__init__(in_channels, out_channels, kernel, stride, half, bias=bias)
        # With stride 1 and an odd kernel both conventions agree, and the convolution itself pads without a copy.
        self._explicit = padding == "same" and any(s != 1 or k % 2 == 0 for k, s in zip(kernel, stride, strict=True))
        # Strided ones too, though that is not faster: in the backward pass of a 7×1×1 convolution of stride 2 over five
        # frames in channels_last_3d oneDNN 3.x writes past its buffers.
        self._over_time = kernel[1:] == (1, 1) and stride[1:] == (1, 1) and kernel[0] % 2 == 1 and not self._explicit
        self._over_space = kernel[0] == 1 and stride[0] == 1 and not self._explicit

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (B, C, T, H, W)."""
        # oneDNN has no float64 kernels.
        if input.device.type == "cpu" and input.dtype == torch.float32:
            if self._over_time:
                return self._convolve_time(input)
            # In another memory format this would copy the frames.
            if self._over_space and input.is_contiguous(memory_format=torch.channels_last_3d):
                return self._convolve_frames(input)
        if not self._explicit:
            return super().forward(input)
        pads = [same_padding(n, k, s) for n, k, s in zip(input.shape[2:], self.kernel_size, self.stride, strict=True)]
        if all(before == after for before, after in pads):
            symmetric = (pads[0][0], pads[1][0], pads[2][0])
            return F.conv3d(input, self.weight, self.bias, self.stride, symmetric)
        flat = [n for pair in reversed(pads) for n in pair]
        return F.conv3d(F.pad(input, flat), self.weight, self.bias, self.stride)

    def _convolve_time(self, x_BCTHW: Tensor) -> Tensor:
        b, c, t, h, w = x_BCTHW.shape
        stride, half = (self.stride[0], 1), (self.kernel_size[0] // 2, 0)
        y = F.conv2d(x_BCTHW.reshape(b, c, t, h * w), self.weight.squeeze(4), self.bias, stride, half)
        return y.reshape(b, self.out_channels, -1, h, w)

    def _convolve_frames(self, x_BCTHW: Tensor) -> Tensor:
        b, c, t, h, w = x_BCTHW.shape
        frames = x_BCTHW.transpose(1, 2).reshape(b * t, c, h, w)
        half = (self.kernel_size[1] // 2, self.kernel_size[2] // 2)
        y = F.conv2d(frames, self.weight.squeeze(2), self.bias, self.stride[1:], half)
        return y.reshape(b, t, self.out_channels, *y.shape[2:]).transpose(1, 2)


class PaddedMaxPool3d(nn.Module):
    """Max pooling over (T, H, W) with symmetric padding or TensorFlow's 'SAME', without a padded copy.

    'SAME' pads only ``before``; at the end windows run over the edge (``ceil_mode``), which gives the same, because
    padding is never the maximum. Symmetric padding follows torchvision's ``s3d``: kernel // 2 for odd kernels, none for
    even ones. An axis that is shorter than its unpadded kernel is pooled as a whole.
    """

    def __init__(self, kernel: Triple, stride: Triple, padding: Padding = "symmetric") -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def extra_repr(self) -> str:
        """The parameters, for ``print(network)``."""
        return f"kernel={self.kernel}, stride={self.stride}, padding={self.padding}"

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Pool (B, C, T, H, W)."""
        sizes = x_BCTHW.shape[2:]
        if self.padding == "same":
            axes = list(zip(sizes, self.kernel, self.stride, strict=True))
            pads = [same_padding(*axis) for axis in axes]
            before = [pad[0] for pad in pads]
            windows = [-(-(n + 2 * b - k) // s) + 1 for (n, k, s), b in zip(axes, before, strict=True)]
            if windows == [-(-n // s) for n, _, s in axes]:
                return F.max_pool3d(x_BCTHW, self.kernel, self.stride, before, ceil_mode=True)
            # An even kernel at stride 1 has no window that runs over the end.
            padded = F.pad(x_BCTHW, [n for pair in reversed(pads) for n in pair], value=-torch.inf)
            return F.max_pool3d(padded, self.kernel, self.stride)
        kernel = [min(k, n) if k % 2 == 0 else k for k, n in zip(self.kernel, sizes, strict=True)]
        half = [k // 2 if k % 2 else 0 for k in self.kernel]
        return F.max_pool3d(x_BCTHW, kernel, self.stride, half)


class ConvNorm(nn.Module):
    """Convolution, optional batch normalisation, optional ReLU.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: (T, H, W).
        stride: (T, H, W).
        norm: the batch normalisation, or None for a convolution with a bias.
        activation: whether a ReLU follows.
        padding: see ``PaddedConv3d``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Triple,
        stride: Triple = (1, 1, 1),
        *,
        norm: nn.BatchNorm3d | None,
        activation: bool = True,
        padding: Padding = "symmetric",
    ) -> None:
        super().__init__()
        self.conv = PaddedConv3d(in_channels, out_channels, kernel, stride, bias=norm is None, padding=padding)
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Transform (B, C, T, H, W)."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return F.relu(x, inplace=True) if self.activation else x


def batch_norm(channels: int, *, eps: float, momentum: float, scale: bool = True) -> nn.BatchNorm3d:
    """A batch normalisation; without ``scale`` its weight is the constant 1 (TF-slim's default).

    The constant is a buffer that is not saved, because the fused kernels need a weight.
    """
    norm = nn.BatchNorm3d(channels, eps=eps, momentum=momentum)
    if not scale:
        ones = norm.weight.detach().clone()
        del norm.weight
        norm.register_buffer("weight", ones, persistent=False)
    return norm


POOLED_AXES: dict[GatePooling, tuple[int, ...]] = {"space_time": (2, 3, 4), "space": (3, 4), "time": (2,)}
"""Axes of (B, C, T, H, W) that a gate averages over."""


class SelfGate(nn.Module):
    """Feature gating of S3D-G (section 4.6): x · σ(W · pool(x) + b), per channel.

    Args:
        channels: of the input and of the output.
        bias: whether b is there, as in the paper's equation; the released code has none (slim ``s3dg.py``,
            self_gating).
        pooling: what pool averages over; the paper found space and time together better than either alone.
    """

    def __init__(self, channels: int, *, bias: bool, pooling: GatePooling = "space_time") -> None:
        super().__init__()
        self.axes = POOLED_AXES[pooling]
        self.conv = nn.Conv3d(channels, channels, 1, bias=bias)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Gate (B, C, T, H, W)."""
        weights: Tensor = self.conv(x_BCTHW.mean(self.axes, keepdim=True)).sigmoid()
        return x_BCTHW * weights
