"""Batch normalisation in short trainings: momentum, and statistics computed anew at the end."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """All batch normalisations of a network."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def set_momentum(network: nn.Module, momentum: float) -> None:
    """Set the share that a new batch has in the running statistics.

    S3D-G's 0.001 (decay 0.999, TF-slim) needs thousands of steps before the running statistics mean anything; a short
    recipe overrides it.
    """
    for module in batch_norms(network):
        module.momentum = momentum


@torch.no_grad()
def reestimate(network: nn.Module, forward: Callable[[object], object], batches: Iterable[object]) -> None:
    """Compute the running statistics anew, as the plain mean over training batches with the final weights.

    Wu & Johnson, "Rethinking 'Batch' in BatchNorm" (2021), section 3.2 ("PreciseBN").

    Args:
        network: its statistics are replaced; its mode is kept.
        forward: runs the network on one of ``batches``.
        batches: training batches, of the size that the training used.
    """
    norms = batch_norms(network)
    momenta = [module.momentum for module in norms]
    was_training = network.training
    network.train()
    for module in norms:
        module.reset_running_stats()
        module.momentum = None
    for batch in batches:
        forward(batch)
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum
    network.train(was_training)
