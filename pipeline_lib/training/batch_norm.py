"""Batch normalisation: its momentum, statistics computed again at the end, and several processes."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as collectives
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

Batch = TypeVar("Batch")


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """All batch normalisations of a network."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def set_momentum(network: nn.Module, momentum: float) -> None:
    """Set the share that a new batch has in the running statistics.

    S3D-G's 0.001 (decay 0.999, TF-slim) needs thousands of steps until the running statistics are right, so a short
    recipe overrides it.
    """
    for module in batch_norms(network):
        module.momentum = momentum


@torch.no_grad()
def reestimate(network: nn.Module, forward: Callable[[Batch], None], batches: Iterable[Batch]) -> None:
    """Compute the running statistics again, as the plain mean over training batches with the final weights.

    One process does this alone, so its normalisations must not be synchronised (``separate``).

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


def _sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    total: torch.Tensor = collectives.all_reduce(values)  # type: ignore[no-untyped-call]
    return total


class SynchronisedBatchNorm3d(nn.BatchNorm3d):
    """Batch normalisation over the micro-batches of all processes, on the CPU.

    torch's own ``SyncBatchNorm`` refuses CPU tensors; this one uses differentiable all-reduces, which gloo has. It
    computes the mean and then the squared distances from it, as one process does.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalise (B, C, T, H, W)."""
        if not self.training:
            return super().forward(input)
        values = input.float()
        shape = (1, -1, 1, 1, 1)
        # The processes may have different numbers of clips, so their means are weighted.
        own = values.numel() // values.shape[1]
        count = torch.tensor(own)
        dist.all_reduce(count)
        share = own / int(count)
        mean = _sum_over_ranks(values.mean(dim=(0, 2, 3, 4)) * share)
        centred = values - mean.view(shape)
        variance = _sum_over_ranks(centred.square().mean(dim=(0, 2, 3, 4)) * share)
        if self.track_running_stats:
            self._update(mean.detach(), variance.detach(), int(count))
        normalised = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        result: torch.Tensor = normalised.to(input.dtype)
        return result

    @torch.no_grad()
    def _update(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), share)


def synchronise(network: nn.Module, device: torch.device) -> None:
    """Let every ``BatchNorm3d`` of a network see the clips of all processes; its parameters and statistics stay.

    Args:
        network: a network that is trained by several processes.
        device: where it runs: torch's ``SyncBatchNorm`` on a GPU, ``SynchronisedBatchNorm3d`` on the CPU.
    """
    _replace(network, nn.BatchNorm3d, nn.SyncBatchNorm if device.type == "cuda" else SynchronisedBatchNorm3d)


def separate(network: nn.Module) -> None:
    """Undo ``synchronise``, for work that one process does alone."""
    for kind in (nn.SyncBatchNorm, SynchronisedBatchNorm3d):
        _replace(network, kind, nn.BatchNorm3d)


def _replace(network: nn.Module, old: type[_BatchNorm], new: type[_BatchNorm]) -> None:
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is old:
                replacement = new(
                    child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
                )
                # The same tensors and not copies, because an optimiser may hold them already.
                replacement.__dict__["_parameters"] = child._parameters
                replacement.__dict__["_buffers"] = child._buffers
                replacement.train(child.training)
                setattr(parent, name, replacement)
