"""What an objective is: it names the modalities that it needs, and computes named losses from a batch."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import nn

from pipeline_lib.clips.views import MotionViews
from pipeline_lib.training.distribution import Ranks

Outputs: TypeAlias = dict[str, torch.Tensor]
Forward: TypeAlias = Callable[[torch.Tensor, tuple[str, ...]], Outputs]
"""(clip (B, C, T, H, W), endpoint names) → tensors by endpoint, ``logits`` (B, num_classes) among them."""


class EndpointForward(nn.Module):
    """Makes ``forward_endpoints`` the forward pass, because wrappers (DDP, compile) wrap only that."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, clip: torch.Tensor, names: tuple[str, ...]) -> Outputs:
        """Tensors by endpoint."""
        if not names:
            return {"logits": self.network(clip)}
        outputs: Outputs = self.network.forward_endpoints(clip, names)  # type: ignore[operator]
        return outputs

    def begin_step(self) -> None:
        """Called before the first forward pass of every optimiser step."""

    def finished(self) -> nn.Module:
        """The network to keep."""
        return self.network

    def end_step(self, ranks: Ranks) -> None:
        """Called after a step of the optimiser, but not after a skipped step."""


class TrainingObjective(Protocol):
    """One objective of a training."""

    modalities: tuple[str, ...]
    """What a batch must hold: ``rgb``, ``flow``."""
    views: MotionViews | None
    """How the motion clips of two views are taken (``PairedClips``); None if a video gives one clip."""

    def attach(self, network: nn.Module) -> EndpointForward:
        """The module that is trained: the network as an ``EndpointForward``, with whatever this objective adds."""
        ...

    def losses(self, student: Forward, batch: Outputs, teacher: Forward | None = None) -> Outputs:
        """Named losses, scalars; ``total`` is minimised, the others are logged.

        Args:
            student: the trained module.
            batch: clips by modality, float32 (B, C, T, H, W) in [-1, 1]; ``labels`` int64 (B,); of mixed clips
                ``other_labels`` and ``share`` (``cross_entropy``).
            teacher: the frozen network in eval mode, without gradients.
        """
        ...


def cross_entropy(logits: torch.Tensor, batch: Outputs, label_smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy on a batch's labels, a scalar; of mixed clips λ · CE(own label) + (1 − λ) · CE(the other's).

    Args:
        logits: float32 (B, classes).
        batch: ``labels``; of mixed clips also ``other_labels`` (B,) and ``share`` (), λ.
        label_smoothing: in [0, 1).
    """
    own = F.cross_entropy(logits, batch["labels"], label_smoothing=label_smoothing)
    if "share" not in batch:
        return own
    other = F.cross_entropy(logits, batch["other_labels"], label_smoothing=label_smoothing)
    return batch["share"] * own + (1.0 - batch["share"]) * other


def batch_top1(logits: torch.Tensor, batch: Outputs) -> torch.Tensor:
    """``top1`` of a batch; of mixed clips each label counts by its share."""
    own = top1(logits, batch["labels"])
    if "share" not in batch:
        return own
    return batch["share"] * own + (1.0 - batch["share"]) * top1(logits, batch["other_labels"])


def top1(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Share of clips whose largest logit is the label's, a scalar."""
    return (logits.detach().argmax(dim=1) == labels).float().mean()
