"""Networks in a form that ONNX's exporter can trace for clips of any length and size.

Some layers choose their arithmetic by the clip's shape: TensorFlow's 'SAME' padding, the windows of Inception's head. A
trace would keep one clip's choice. Inside ``traceable`` they compute the same numbers without a choice.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.models.inception3d import InceptionHead
from pipeline_lib.models.layers import PaddedConv3d, PaddedMaxPool3d
from pipeline_lib.models.network import VideoNetwork

SHAPES_NO_ARTEFACT = True

HEAD_WINDOW = 7
"""Height and width of the window of Inception's head."""


def same_pads(sizes: Sequence[Any], kernel: Sequence[int], stride: Sequence[int]) -> list[Any]:
    """``same_padding`` of each axis, the last axis first as ``F.pad`` takes it, in arithmetic that can be traced."""
    flat: list[Any] = []
    for size, window, step in zip(sizes, kernel, stride, strict=True):
        total = ((size + step - 1) // step - 1) * step + window - size
        # max(total, 0)
        total = (total + abs(total)) // 2
        flat = [total // 2, total - total // 2, *flat]
    return flat


def _convolution(layer: PaddedConv3d, input: Tensor) -> Tensor:
    if not layer._explicit:
        return nn.Conv3d.forward(layer, input)
    padded = F.pad(input, same_pads(input.shape[2:], layer.kernel_size, layer.stride))
    return F.conv3d(padded, layer.weight, layer.bias, layer.stride)


def _pooling(layer: PaddedMaxPool3d, x_BCTHW: Tensor) -> Tensor:
    if layer.padding != "same":
        return PaddedMaxPool3d.forward(layer, x_BCTHW)
    padded = F.pad(x_BCTHW, same_pads(x_BCTHW.shape[2:], layer.kernel, layer.stride), value=-torch.inf)
    return F.max_pool3d(padded, layer.kernel, layer.stride)


def window_weights(size: Any, window: int) -> Tensor:
    """What each position of an axis weighs in the mean over all windows' means, float32 (size,); they sum to 1.

    Args:
        size: of the axis.
        window: its length; an axis that is shorter is one window.
    """
    length = torch.as_tensor(size)
    # A trace keeps the length as a tensor.
    place = torch.arange(length)  # type: ignore[call-overload]
    width = torch.clamp(length, max=window)
    windows = length - width + 1
    holding = torch.minimum(torch.minimum(place + 1, length - place), torch.minimum(width, windows))
    return holding.float() / (width * windows).float()


def _head(layer: InceptionHead, x_BCTHW: Tensor) -> Tensor:
    # The classifier is linear, so it may come after the mean over what its windows see.
    t, h, w = x_BCTHW.shape[2:]
    weights = window_weights(t, layer.temporal_kernel)[:, None, None]
    weights = weights * window_weights(h, HEAD_WINDOW)[:, None] * window_weights(w, HEAD_WINDOW)
    return F.linear((x_BCTHW * weights).sum((2, 3, 4)), layer.conv.weight.flatten(1), layer.conv.bias)


_FORMS: dict[type[nn.Module], Callable[..., Tensor]] = {
    PaddedConv3d: _convolution,
    PaddedMaxPool3d: _pooling,
    InceptionHead: _head,
}


@contextmanager
def traceable(network: nn.Module) -> Iterator[nn.Module]:
    """The network, whose layers make no choices by the clip's shape until the block ends; it is in evaluation mode."""
    changed: list[tuple[nn.Module, str]] = []
    for module in network.modules():
        form = _FORMS.get(type(module))
        if form is not None:
            module.forward = form.__get__(module)
            changed.append((module, "forward"))
        if isinstance(module, VideoNetwork):
            # Without the check of the shape, which is Python's.
            module._prepare = _prepared.__get__(module)  # type: ignore[method-assign]
            changed.append((module, "_prepare"))
    try:
        yield network
    finally:
        for module, name in changed:
            delattr(module, name)


def _prepared(network: VideoNetwork, clip_BCTHW: Tensor) -> Tensor:
    if network._rescales:
        return clip_BCTHW * network.input_scale.view(-1, 1, 1, 1) + network.input_shift.view(-1, 1, 1, 1)
    return clip_BCTHW
