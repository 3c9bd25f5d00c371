"""What changes the weights: optimisers with the recipe's constants, and the average of the weights over the steps."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline_lib.configuration.training import Optimiser


def parameter_groups(network: nn.Module, settings: Optimiser) -> list[dict[str, object]]:
    """Parameters in one group, or in two if normalisations and biases have another decay."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if settings.weight_decay_norm is None or settings.weight_decay_norm == settings.weight_decay:
        return [{"params": trained, "weight_decay": settings.weight_decay}]
    apart: set[int] = set()
    for module in network.modules():
        if isinstance(module, _BatchNorm | nn.LayerNorm | nn.GroupNorm):
            apart.update(id(parameter) for parameter in module.parameters(recurse=False))
        elif isinstance(bias := getattr(module, "bias", None), nn.Parameter):
            apart.add(id(bias))
    return [
        {"params": [p for p in trained if id(p) not in apart], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if id(p) in apart], "weight_decay": settings.weight_decay_norm},
    ]


def build_optimiser(network: nn.Module, settings: Optimiser, rate: float, fused: bool) -> torch.optim.Optimizer:
    """The recipe's optimiser.

    Args:
        network: the network to train.
        settings: the recipe's ``optimiser`` section.
        rate: learning rate of the first step.
        fused: one kernel for all parameters, if the device has one.
    """
    groups = parameter_groups(network, settings)
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=(settings.momentum, settings.beta2), fused=fused)
    return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, nesterov=settings.nesterov, fused=fused)


def averaged(module: nn.Module, decay: float) -> AveragedModel:
    """A copy of a module whose parameters follow it as an exponential moving average.

    Buffers are copied, because statistics of batch normalisation are already means over many steps.

    Args:
        module: the trained module; the average starts from its present weights.
        decay: share of the average that a step leaves, in (0, 1).
    """
    moving = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(module, multi_avg_fn=moving).requires_grad_(False)
    # torch's first update copies the weights, which would lose those that the training started from.
    average.n_averaged.fill_(1)
    return average
