"""The benchmark's claim that what it times learns as torchvision's network does."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

CPU = torch.device("cpu")


@pytest.fixture
def benchmark(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    monkeypatch.setattr(sys, "path", [str(repository / "benchmarks"), *sys.path])
    return importlib.import_module("training_step")


def test_losses_follow_torchvisions_s3d(benchmark: ModuleType) -> None:
    torch.manual_seed(0)
    found = benchmark.compare_losses(6, CPU, compiled=False, side=32)
    assert 0 < found["largest_difference"] <= found["tolerance"] == 1e-3
    theirs, ours = benchmark.loss_curves(6, CPU, compiled=False, side=32)
    assert len(theirs) == len(ours) == 6
    # They learn: the same four clips again, at the third and the fifth step.
    assert theirs[4] < theirs[2] < theirs[0]


def test_another_network_is_noticed(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    same = benchmark.with_weights_of

    def altered(reference: torch.nn.Module) -> torch.nn.Module:
        network: torch.nn.Module = same(reference)
        with torch.no_grad():
            next(network.parameters()).mul_(1.5)
        return network

    monkeypatch.setattr(benchmark, "with_weights_of", altered)
    with pytest.raises(SystemExit, match="the losses part by"):
        benchmark.compare_losses(3, CPU, compiled=False, side=32)
