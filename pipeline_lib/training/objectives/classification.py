"""Cross-entropy on the labels."""

import torch.nn.functional as F
from torch import nn

from pipeline_lib.configuration.experiments import Classification
from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.training.objectives.base import EndpointForward, Forward, Outputs, top1


class ClassificationObjective:
    """Cross-entropy of the student's logits on the labels."""

    needs_teacher = False

    def __init__(self, settings: Classification, modality: str) -> None:
        self.settings, self.modality = settings, modality
        self.modalities: tuple[str, ...] = (modality,)

    def attach(self, network: nn.Module) -> nn.Module:
        """The network alone."""
        return EndpointForward(network)

    def losses(self, student: Forward, batch: Outputs, teacher: Forward | None = None) -> Outputs:
        """``total`` (the cross-entropy) and ``top1`` of the batch."""
        assert teacher is None
        logits = student(batch[self.modality], ())["logits"].float()
        loss = F.cross_entropy(logits, batch["labels"], label_smoothing=self.settings.label_smoothing)
        return {"total": loss, "top1": top1(logits, batch["labels"])}


def build(specification: TrainingSpecification) -> ClassificationObjective:
    """The objective of a specification."""
    assert isinstance(specification.objective, Classification)
    return ClassificationObjective(specification.objective, specification.modality)
