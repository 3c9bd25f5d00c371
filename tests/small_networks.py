"""Networks of the catalogue, narrow enough for a test, and clips that they take."""

import importlib
from typing import Any

import torch

from pipeline_lib.models import catalogue
from pipeline_lib.models.network import VideoNetwork

SMALL: dict[str, dict[str, Any]] = {
    catalogue.INCEPTION: {"depth_multiplier": 0.0625, "minimum_depth": 4},
    catalogue.RESNET: {"width": 8},
    catalogue.SLOW: {"width": 8},
    catalogue.PREDICTED_FLOW: {"depth_multiplier": 0.0625, "minimum_depth": 4},
    catalogue.MVIT: {"depths": [1, 1, 2], "width": 8, "num_frames": 4, "side": 32},
    catalogue.SWIN: {"depths": [2, 1], "width": 8, "num_heads": [1, 2], "window": [2, 4, 4]},
}


def built(name: str, num_classes: int = 5, in_channels: int = 3, **options: Any) -> VideoNetwork:
    module, defaults = catalogue.resolve(name)
    network: VideoNetwork = importlib.import_module(module).build(num_classes, in_channels, **{**defaults, **options})
    return network


def weights_of(network: VideoNetwork) -> dict[str, torch.Tensor]:
    """The network's weights without its normalisation of the input and without counters."""
    left_out = ("input_scale", "input_shift", "num_batches_tracked")
    return {name: tensor for name, tensor in network.state_dict().items() if not name.endswith(left_out)}


def small(name: str, in_channels: int = 3, **options: Any) -> VideoNetwork:
    torch.manual_seed(0)
    return built(name, in_channels=in_channels, **{**SMALL[catalogue.resolve(name)[0]], **options})


def noise(network: VideoNetwork, batch: int = 2, frames: int = 8, height: int = 48, width: int = 48) -> torch.Tensor:
    """A clip that the network takes; the given length and size hold where it takes any."""
    takes = network.input
    return torch.randn(batch, takes.channels, takes.num_frames or frames, takes.side or height, takes.side or width)
