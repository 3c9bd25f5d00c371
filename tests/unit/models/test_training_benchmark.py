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


def test_losses_are_torchvisions_step_by_step(benchmark: ModuleType) -> None:
    """In float64, where rounding tips no ReLU over: three steps of training, the same losses."""
    torch.set_default_dtype(torch.float64)
    try:
        found = benchmark.compare_losses(3, CPU, compiled=False, side=32, frames=8, tolerances=(1e-9, 1e-9))
    finally:
        torch.set_default_dtype(torch.float32)
    assert found["largest_difference"] <= 1e-9 and found["last"] == found["last_of_ours"]


def test_another_function_is_noticed_in_float32(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    found = benchmark.compare_losses(2, CPU, compiled=False, side=32, frames=8)
    assert found["first_of_ours"] == pytest.approx(found["first"], rel=1e-3)
    same = benchmark.with_weights_of

    def altered(reference: torch.nn.Module) -> torch.nn.Module:
        network: torch.nn.Module = same(reference)
        with torch.no_grad():
            network.get_parameter("head.conv.bias")[:8] += 1
        return network

    monkeypatch.setattr(benchmark, "with_weights_of", altered)
    with pytest.raises(SystemExit, match="the losses part from torchvision's"):
        benchmark.compare_losses(2, CPU, compiled=False, side=32, frames=8)
