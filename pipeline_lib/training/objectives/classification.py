"""Cross-entropy on the labels."""

from typing import Self

import torch
from torch import nn

from pipeline_lib.configuration.objectives import Classification
from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.models.network import PooledHead
from pipeline_lib.training.objectives.base import EndpointForward, Forward, Outputs, batch_top1, cross_entropy


class FrozenForward(EndpointForward):
    """A frozen trunk in eval mode and a trained classifier: the linear protocol."""

    def __init__(self, network: nn.Module, standardised: bool) -> None:
        super().__init__(network)
        network.requires_grad_(False)
        network.head.requires_grad_(True)  # type: ignore[operator, union-attr]
        if standardised:
            head = network.head
            if not isinstance(head, PooledHead) or head.hidden:
                raise UserError(
                    "objective.standardised: this network's classifier is not one linear layer on pooled features"
                )
            head.fc = nn.Sequential(nn.BatchNorm1d(head.fc.in_features, affine=False), head.fc)  # type: ignore[assignment]

    def train(self, mode: bool = True) -> Self:
        """As for any module, but the trunk stays in eval mode, because training mode would change its statistics."""
        super().train(mode)
        self.network.eval()
        self.network.head.train(mode)  # type: ignore[operator, union-attr]
        return self

    def finished(self) -> nn.Module:
        """The network, with the standardisation inside the classifier's weights: W′ = W / σ, b′ = b − W′μ."""
        fc = getattr(self.network.head, "fc", None)
        if isinstance(fc, nn.Sequential):
            norm, linear = fc
            assert isinstance(norm, nn.BatchNorm1d) and isinstance(linear, nn.Linear)
            assert norm.running_mean is not None and norm.running_var is not None
            with torch.no_grad():
                linear.weight.mul_(torch.rsqrt(norm.running_var + norm.eps))
                linear.bias.sub_(linear.weight @ norm.running_mean)
            self.network.head.fc = linear  # type: ignore[union-attr]
        return self.network


class ClassificationObjective:
    """Cross-entropy of the student's logits on the labels."""

    views = None

    def __init__(self, settings: Classification, modality: str) -> None:
        self.settings, self.modality = settings, modality
        self.modalities: tuple[str, ...] = (modality,)

    def attach(self, network: nn.Module) -> EndpointForward:
        """The network; if ``frozen``, all but its classifier is frozen."""
        if not self.settings.frozen:
            return EndpointForward(network)
        return FrozenForward(network, self.settings.standardised)

    def losses(self, student: Forward, batch: Outputs, teacher: Forward | None = None) -> Outputs:
        """``total`` (the cross-entropy) and ``top1`` of the batch."""
        assert teacher is None
        logits = student(batch[self.modality], ())["logits"].float()
        loss = cross_entropy(logits, batch, self.settings.label_smoothing)
        return {"total": loss, "top1": batch_top1(logits, batch)}


def build(specification: TrainingSpecification) -> ClassificationObjective:
    """The objective of a specification."""
    assert isinstance(specification.objective, Classification)
    return ClassificationObjective(specification.objective, specification.modality)
