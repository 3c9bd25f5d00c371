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
from pipeline_lib.models.network import LOGITS, VideoNetwork
from pipeline_lib.training.networks import build_network
from pipeline_lib.training.objectives.base import EndpointForward, Forward, Outputs, batch_top1, cross_entropy


def distance(kind: str, student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Distance of two endpoints' tensors, a scalar in float32.

    Args:
        kind: ``mse``: mean of squared differences over all elements. ``mse_literal``: equation 2 to the letter, the
            squared differences summed over each clip's elements and over the clips, divided by N − 1 (N clips; one
            clip divides by 1). λ is there to make the two losses comparable (section 3.2); the paper's λ = 100 at a
            convolutional endpoint does so only with ``mse``. ``kl``: Hinton et al. (2015), equation 1 and section 2:
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


def resampling(size: int, target: int) -> torch.Tensor:
    """A matrix (target, size) that resamples one axis: by means if it gets shorter, linearly if it gets longer."""
    identity = torch.eye(size)[None]
    if target < size:
        return F.adaptive_avg_pool1d(identity, target)[0].T
    return F.interpolate(identity, target, mode="linear", align_corners=False)[0].T


class Adapter(nn.Module):
    """A 1×1×1 convolution from the student's channels to the teacher's, then a resampling to the teacher's T×H×W.

    Matrices resample one axis after the other. Their gradients have the same bits in every run; on a GPU those of
    torch's own trilinear interpolation do not.

    Args:
        shape: (C, T, H, W) of the student's endpoint.
        target: (C, T, H, W) of the teacher's.
    """

    def __init__(self, shape: tuple[int, ...], target: tuple[int, ...]) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(shape[0], target[0], 1)
        for axis, size, wanted in zip("thw", shape[1:], target[1:], strict=True):
            matrix = None if size == wanted else resampling(size, wanted)
            self.register_buffer(axis, matrix, persistent=False)

    def forward(self, features_BCTHW: torch.Tensor) -> torch.Tensor:
        """(B, C', T', H', W') of (B, C, T, H, W)."""
        x: torch.Tensor = self.convolution(features_BCTHW)
        for axis, sums in (("t", "bcthw,st->bcshw"), ("h", "bcthw,sh->bctsw"), ("w", "bcthw,sw->bcths")):
            matrix = getattr(self, axis)
            if matrix is not None:
                x = torch.einsum(sums, x, matrix)
        return x


class AdaptedForward(EndpointForward):
    """The network and an adapter on one endpoint, which is trained too. The final weights leave the adapter out."""

    def __init__(self, network: nn.Module, endpoint: str, adapter: Adapter) -> None:
        super().__init__(network)
        self.endpoint, self.adapter = endpoint, adapter

    def forward(self, clip: torch.Tensor, names: tuple[str, ...]) -> Outputs:
        """Tensors by endpoint; the adapted one has the teacher's shape."""
        outputs = super().forward(clip, names)
        return {name: self.adapter(x) if name == self.endpoint else x for name, x in outputs.items()}


class DistillationObjective:
    """Equation 1: L = action_weight · cross-entropy + λ · L_distill at one endpoint of each network.

    Args:
        settings: endpoints, distance, weights.
        student_modality: ``rgb`` or ``flow``.
        teacher_modality: ``rgb`` or ``flow``.
        clip: frames of a training clip and its side in pixels; an adapter is made for it.
        target: (C, T, H, W) of the teacher's endpoint on such a clip; None makes no adapter.
    """

    views = None

    def __init__(
        self,
        settings: Distillation,
        student_modality: str,
        teacher_modality: str,
        clip: tuple[int, int] = (16, 224),
        target: tuple[int, ...] | None = None,
    ) -> None:
        self.settings = settings
        self.student_modality, self.teacher_modality = student_modality, teacher_modality
        self.modalities: tuple[str, ...] = tuple(dict.fromkeys((student_modality, teacher_modality)))
        self.clip, self.target = clip, target

    def attach(self, network: nn.Module) -> EndpointForward:
        """The network, with an adapter if its endpoint has another shape than the teacher's.

        Raises:
            UserError: the network has no such endpoint, or the shapes differ and the settings want no adapter.
        """
        settings = self.settings
        check_endpoint(network, settings.endpoint, "student")
        if self.target is None:
            return EndpointForward(network)
        assert isinstance(network, VideoNetwork)
        shape = network.endpoint_shapes([settings.endpoint], *self.clip)[settings.endpoint]
        # With ``pooled`` both are averaged over their grids, so the grids may differ.
        target = (self.target[0], *shape[1:]) if settings.pooled else self.target
        if shape == target:
            return EndpointForward(network)
        if settings.adapter == "none":
            raise UserError(
                _unequal(settings, shape, target) + "Set objective.adapter: auto, or choose other endpoints."
            )
        return AdaptedForward(network, settings.endpoint, Adapter(shape, target))

    def losses(self, student: Forward, batch: Outputs, teacher: Forward | None = None) -> Outputs:
        """``total``, ``action`` (cross-entropy), ``distillation`` (distance, without λ) and ``top1``.

        Raises:
            UserError: student and teacher have logits of different classes.
        """
        assert teacher is not None
        settings = self.settings
        outputs = student(batch[self.student_modality], _beside_logits(settings.endpoint))
        taught = settings.taught_endpoint
        with torch.no_grad():
            target = teacher(batch[self.teacher_modality], _beside_logits(taught))[taught]
        own = outputs[settings.endpoint]
        if settings.pooled and own.dim() == 5:
            own, target = own.float().mean(dim=(2, 3, 4)), target.float().mean(dim=(2, 3, 4))
        if own.shape != target.shape:
            raise UserError(
                _unequal(settings, tuple(own.shape[1:]), tuple(target.shape[1:]))
                + "Choose another endpoint, or networks that were trained on the same classes."
            )
        logits = outputs["logits"].float()
        action = cross_entropy(logits, batch)
        distilled = distance(settings.distance, own, target, settings.temperature)
        return {
            "total": settings.action_weight * action + settings.weight * distilled,
            "action": action.detach(),
            "distillation": distilled.detach(),
            "top1": batch_top1(logits, batch),
        }


def _beside_logits(endpoint: str) -> tuple[str, ...]:
    return () if endpoint == LOGITS else (endpoint,)


def _unequal(settings: Distillation, shape: tuple[int, ...], target: tuple[int, ...]) -> str:
    place = "" if settings.taught_endpoint == settings.endpoint else f" at {settings.taught_endpoint}"
    return (
        f"objective.endpoint: {settings.endpoint} has the shape {shape} in the student and {target} in the teacher"
        f"{place}; distillation needs equal ones. "
    )


def check_endpoint(network: nn.Module, endpoint: str, who: str) -> None:
    """Raise a UserError if a network has no such endpoint."""
    known: tuple[str, ...] = ("logits", *network.endpoints)  # type: ignore[misc]
    if endpoint not in known:
        raise UserError(f"objective.endpoint: the {who} has no {endpoint!r}; it has {', '.join(dict.fromkeys(known))}")


def build(specification: TrainingSpecification) -> DistillationObjective:
    """The objective of a specification.

    Raises:
        UserError: the teacher has no such endpoint, or cannot see the student's clips.
    """
    settings, teacher, target = specification.objective, specification.teacher, None
    assert isinstance(settings, Distillation) and teacher is not None
    clip = (specification.recipe.sampling.num_frames, specification.recipe.sampling.crop)
    if settings.endpoint != LOGITS:
        with torch.device("meta"):
            shadow = build_network(teacher.model, 1, teacher.modality)
        assert isinstance(shadow, VideoNetwork)
        check_endpoint(shadow, settings.taught_endpoint, "teacher")
        target = shadow.endpoint_shapes([settings.taught_endpoint], *clip)[settings.taught_endpoint]
    return DistillationObjective(settings, specification.modality, teacher.modality, clip, target)
