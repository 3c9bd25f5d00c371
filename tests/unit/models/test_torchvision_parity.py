"""The networks that torchvision also has: equal parameters, equal logits from equal weights."""

import importlib
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from pipeline_lib.models.catalogue import resolve
from pipeline_lib.models.importing.publishers import convert
from pipeline_lib.models.importing.sources import SOURCES, TORCHVISION_VIDEO
from pipeline_lib.models.network import VideoNetwork

SIZES = {
    "s3d": [(16, 64, 64), (19, 64, 72)],
    "r3d_18": [(8, 48, 48), (5, 40, 57)],
    "mc3_18": [(8, 48, 48), (5, 40, 57)],
    "r2plus1d_18": [(8, 48, 48), (5, 40, 57)],
}


def built(name: str, num_classes: int = 7, in_channels: int = 3, **options: Any) -> VideoNetwork:
    module, defaults = resolve(name)
    network: VideoNetwork = importlib.import_module(module).build(num_classes, in_channels, **{**defaults, **options})
    return network


def pair(name: str) -> tuple[nn.Module, VideoNetwork]:
    """torchvision's network with random weights and statistics, and ours filled from its state dictionary."""
    torch.manual_seed(3)
    theirs: nn.Module = getattr(torchvision.models.video, name)(weights=None, num_classes=7)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    state, about = convert(SOURCES[f"torchvision/{name}"], theirs.state_dict())
    assert about["num_classes"] == 7
    # torchvision's s3d drops features before its classifier; in a training the recipe says how many.
    ours = built(f"torchvision/{name}", dropout=0.2 if name == "s3d" else 0.0)
    ours.load_state_dict(state)
    return theirs.double(), ours.double()


def logits(network: nn.Module, clip: Tensor) -> Tensor:
    """Logits under one seed of the dropout."""
    torch.manual_seed(11)
    with torch.no_grad():
        found: Tensor = network(clip)
    return found


@pytest.mark.parametrize("name", SIZES)
def test_equal_weights_give_equal_logits(name: str) -> None:
    theirs, ours = pair(name)
    ours._rescales = False
    if name == "s3d":
        clip = torch.rand(1, 3, 16, 224, 224, dtype=torch.float64)
        assert (logits(ours.eval(), clip) - logits(theirs.eval(), clip)).abs().max() < 1e-9
        # On smaller clips theirs has no window that fits: ours shrinks to the features.
        theirs.avgpool = nn.AvgPool3d((2, 2, 2), 1)
    for training in (True, False):
        theirs.train(training)
        ours.train(training)
        for size in SIZES[name]:
            clip = torch.rand(2, 3, *size, dtype=torch.float64)
            assert (logits(ours, clip) - logits(theirs, clip)).abs().max() < 1e-9


def test_imported_weights_take_clips_between_minus_one_and_one() -> None:
    theirs, ours = pair("mc3_18")
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1, 1) for v in TORCHVISION_VIDEO)
    clip = torch.rand(2, 3, 4, 32, 32, dtype=torch.float64)
    expected = logits(theirs.eval(), (clip - mean) / std)
    # The constants are stored in float32.
    assert (logits(ours.eval(), clip * 2 - 1) - expected).abs().max() < 1e-5
    assert (logits(ours, clip) - expected).abs().max() > 1e-2


@pytest.mark.parametrize(("name", "parameters"), [("s3d", 8_320_048), ("r3d_18", 33_371_472)])
def test_parameters_are_torchvisions(name: str, parameters: int) -> None:
    with torch.device("meta"):
        network = built(f"torchvision/{name}", 400)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_a_torchvision_style_network_learns_as_torchvisions_does() -> None:
    theirs, ours = pair("r2plus1d_18")
    ours._rescales = False
    clip = torch.rand(2, 3, 4, 32, 32, dtype=torch.float64)
    labels = torch.tensor([1, 5])
    losses = []
    for network in (theirs.train(), ours.train()):
        optimiser = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
        for _ in range(3):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(network(clip), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append(loss.item())
    assert losses[:3] == pytest.approx(losses[3:], abs=1e-9)
    assert losses[2] < losses[0]
