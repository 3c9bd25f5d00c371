"""D3D's distillation: cross-entropy + λ · distance between student and frozen teacher.

Stroud, Ross, Sun, Deng, Sukthankar, "D3D: Distilled 3D Networks for Video Action Recognition" (WACV 2020), section 3.2,
equations 1 and 2. The temporal stream (teacher) sees optical flow, the spatial stream (student) RGB of the same
frames; the teacher's weights are fixed.
"""

import torch
import torch.nn.functional as F
from torch import nn

from pipeline_lib.configuration.objectives import Distillation
from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.training.objectives.base import EndpointForward, Forward, Outputs, top1


def distance(kind: str, student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Distance of two endpoints' tensors, a scalar in float32.

    Args:
        kind: ``mse``: mean of squared differences over all elements. ``mse_literal``: equation 2 to the letter, the
            squared differences summed over each clip's elements and over the clips, divided by N − 1 (N clips; one
            clip divides by 1). Only with ``mse`` does the paper's λ = 100 at a convolutional endpoint make the two
            losses comparable, as section 3.2 says λ is for. ``kl``: Hinton et al. (2015), equation 1 and section 2:
            T² · KL(teacher ‖ student) of the softmax at temperature T over dimension 1, mean over the rest.
        student: (B, C, …), the gradient flows here.
        teacher: the same shape.
        temperature: T, for ``kl`` only.
    """
    student, teacher = student.float(), teacher.detach().float()
    if kind == "mse":
        return F.mse_loss(student, teacher)
    if kind == "mse_literal":
        return (student - teacher).square().sum() / max(student.shape[0] - 1, 1)
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1)
    return temperature**2 * divergence.mean()


class DistillationObjective:
    """Equation 1: L = action_weight · cross-entropy + λ · L_distill at one endpoint."""

    views = None

    def __init__(self, settings: Distillation, student_modality: str, teacher_modality: str) -> None:
        self.settings = settings
        self.student_modality, self.teacher_modality = student_modality, teacher_modality
        self.modalities: tuple[str, ...] = tuple(dict.fromkeys((student_modality, teacher_modality)))
        self._names: tuple[str, ...] = () if settings.endpoint == "logits" else (settings.endpoint,)

    def attach(self, network: nn.Module) -> EndpointForward:
        """The network alone.

        Raises:
            UserError: the network has no such endpoint.
        """
        check_endpoint(network, self.settings.endpoint, "student")
        return EndpointForward(network)

    def losses(self, student: Forward, batch: Outputs, teacher: Forward | None = None) -> Outputs:
        """``total``, ``action`` (cross-entropy), ``distillation`` (distance, without λ) and ``top1``.

        Raises:
            UserError: student and teacher differ in the endpoint's shape.
        """
        assert teacher is not None
        settings = self.settings
        outputs = student(batch[self.student_modality], self._names)
        with torch.no_grad():
            target = teacher(batch[self.teacher_modality], self._names)[settings.endpoint]
        own = outputs[settings.endpoint]
        if own.shape != target.shape:
            raise UserError(
                f"objective.endpoint: {settings.endpoint} has the shape {tuple(own.shape[1:])} in the student and "
                f"{tuple(target.shape[1:])} in the teacher; distillation needs equal ones. Choose another endpoint, "
                "or networks of the same width trained on the same classes."
            )
        if settings.pooled and own.dim() == 5:
            own, target = own.float().mean(dim=(2, 3, 4)), target.float().mean(dim=(2, 3, 4))
        logits = outputs["logits"].float()
        action = F.cross_entropy(logits, batch["labels"])
        distilled = distance(settings.distance, own, target, settings.temperature)
        return {
            "total": settings.action_weight * action + settings.weight * distilled,
            "action": action.detach(),
            "distillation": distilled.detach(),
            "top1": top1(logits, batch["labels"]),
        }


def check_endpoint(network: nn.Module, endpoint: str, who: str) -> None:
    """Raise a UserError if a network has no such endpoint."""
    known: tuple[str, ...] = ("logits", *network.endpoints)  # type: ignore[misc]
    if endpoint not in known:
        raise UserError(f"objective.endpoint: the {who} has no {endpoint!r}; it has {', '.join(dict.fromkeys(known))}")


def build(specification: TrainingSpecification) -> DistillationObjective:
    """The objective of a specification."""
    assert isinstance(specification.objective, Distillation) and specification.teacher is not None
    return DistillationObjective(specification.objective, specification.modality, specification.teacher.modality)
