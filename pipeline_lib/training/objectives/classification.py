"""Cross-entropy on the labels."""

from typing import Self

import torch.nn.functional as F
from torch import nn

from pipeline_lib.configuration.experiments import Classification
from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.training.objectives.base import EndpointForward, Forward, Outputs, top1


class FrozenForward(EndpointForward):
    """A trunk that stays as it is, in eval mode, under a classifier that is trained (the linear protocol)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        network.requires_grad_(False)
        network.head.requires_grad_(True)  # type: ignore[operator, union-attr]

    def train(self, mode: bool = True) -> Self:
        """As any module; the trunk stays in eval mode, or its batch-norm statistics would move."""
        super().train(mode)
        self.network.eval()
        self.network.head.train(mode)  # type: ignore[operator, union-attr]
        return self


class ClassificationObjective:
    """Cross-entropy of the student's logits on the labels."""

    needs_teacher = False
    views = None

    def __init__(self, settings: Classification, modality: str) -> None:
        self.settings, self.modality = settings, modality
        self.modalities: tuple[str, ...] = (modality,)

    def attach(self, network: nn.Module) -> EndpointForward:
        """The network alone; frozen, all but its classifier."""
        return FrozenForward(network) if self.settings.frozen else EndpointForward(network)

    def losses(self, student: Forward, batch: Outputs, teacher: Forward | None = None) -> Outputs:
        """``total`` (the cross-entropy) and ``top1`` of the batch."""
        assert teacher is None
        logits = student(batch[self.modality], ())["logits"].float()
        loss = F.cross_entropy(logits, batch["labels"], label_smoothing=self.settings.label_smoothing)
        return {"total": loss, "top1": top1(logits, batch["labels"])}


def build(specification: TrainingSpecification) -> ClassificationObjective:
    """The objective of a specification.

    Raises:
        UserError: a frozen trunk's statistics would be computed anew.
    """
    assert isinstance(specification.objective, Classification)
    if specification.objective.frozen and specification.recipe.reestimate_batch_norm:
        raise UserError("recipe.reestimate_batch_norm: a frozen trunk (objective.frozen) keeps its statistics; set 0")
    return ClassificationObjective(specification.objective, specification.modality)
