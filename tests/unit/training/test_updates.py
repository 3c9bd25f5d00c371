"""What one optimiser step does to the weights: clipped gradients, averaged weights, against their formulas."""

from pathlib import Path

import pytest
import torch
from packed_set import PackedSet, make_packed_set, tiny_training

from pipeline_lib.training.optimisers import averaged
from pipeline_lib.training.run import train
from pipeline_lib.training.weights import load_weights

PLAIN = {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0}
NO_STEP = 1e-30
"""A rate that leaves float32 weights as they are."""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    return make_packed_set(tmp_path_factory.mktemp("updates"), num_train=12, num_validation=0)


def trained(packed: PackedSet, output: Path, **recipe: object) -> dict[str, torch.Tensor]:
    """Tensors after a training that is the same but for the changes."""
    defaults = {"optimiser": PLAIN, "steps": 1, "checkpoint_steps": 100}
    train(tiny_training(packed, recipe={**defaults, **recipe}), packed.root, output, 0)
    return load_weights(output / "weights.safetensors")[0]


def movement(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> torch.Tensor:
    """The change of all trained weights, one vector in float64."""
    names = [name for name in before if "running" not in name and "num_batches" not in name]
    return torch.cat([(after[name].double() - before[name].double()).flatten() for name in names])


def test_a_gradient_is_clipped_to_its_norm(packed, tmp_path):
    rate, norm = 0.5, 0.05
    schedule = {"base_rate": rate}
    first = trained(packed, tmp_path / "first", schedule={"base_rate": NO_STEP})
    free = movement(first, trained(packed, tmp_path / "free", schedule=schedule))
    clipping = {**PLAIN, "clip_gradient_norm": norm}
    clipped = movement(first, trained(packed, tmp_path / "clipped", schedule=schedule, optimiser=clipping))
    loose = {**PLAIN, "clip_gradient_norm": 1e6}
    unclipped = movement(first, trained(packed, tmp_path / "loose", schedule=schedule, optimiser=loose))
    assert free.norm().item() > 2 * rate * norm
    assert clipped.norm().item() == pytest.approx(rate * norm, rel=1e-3)
    assert torch.nn.functional.cosine_similarity(free, clipped, dim=0).item() == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(unclipped, free)


def test_averaged_weights_follow_their_formula(packed, tmp_path):
    decay, num_steps = 0.7, 4
    average = trained(packed, tmp_path / "0", schedule={"base_rate": NO_STEP})
    for step in range(1, num_steps + 1):
        weights = trained(packed, tmp_path / str(step), steps=step)
        for name in weights:
            # Statistics of batch normalisation are not averaged: they are means over batches already.
            keep = 0.0 if "running" in name or "num_batches" in name else decay
            average[name] = keep * average[name] + (1 - keep) * weights[name]
    averaged = trained(packed, tmp_path / "averaged", steps=num_steps, ema_decay=decay)
    assert set(averaged) == set(average)
    for name, tensor in averaged.items():
        assert torch.allclose(tensor.float(), average[name].float(), rtol=1e-5, atol=1e-7), name
    assert any(not torch.equal(averaged[name], weights[name]) for name in averaged)


def test_the_average_is_the_formula_to_the_bit_and_takes_buffers_as_they_are():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3), torch.nn.BatchNorm3d(4))
    average = averaged(module, 0.9)
    expected = [parameter.detach().clone() for parameter in module.parameters()]
    for _ in range(3):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += torch.randn_like(parameter)
        module(torch.randn(2, 3, 4, 4, 4))
        average.update_parameters(module)
        torch._foreach_lerp_(expected, [parameter.detach() for parameter in module.parameters()], 1.0 - 0.9)
    assert all(torch.equal(*pair) for pair in zip(average.module.parameters(), expected, strict=True))
    assert all(torch.equal(*pair) for pair in zip(average.module.buffers(), module.buffers(), strict=True))
    assert not any(parameter.requires_grad for parameter in average.parameters())
