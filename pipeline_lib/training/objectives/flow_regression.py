"""A network's hidden features predict the flow of a clip, beside or instead of its class (D3D, section 3.1)."""

from typing import Self

import torch
import torch.nn.functional as F
from torch import nn

from pipeline_lib.configuration.objectives import FlowRegression
from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.models.decoders import FlowDecoder, flow_to_polar, polar_to_flow
from pipeline_lib.models.network import VideoNetwork
from pipeline_lib.training.objectives.base import EndpointForward, Forward, Outputs, top1
from pipeline_lib.training.objectives.distillation import check_endpoint

PREDICTION = "predicted_flow"


class DecodedForward(EndpointForward):
    """The network and a flow decoder on one endpoint. The final weights leave the decoder out.

    Args:
        network: trained too, unless ``freeze``.
        settings: endpoint and decoder.
    """

    def __init__(self, network: VideoNetwork, settings: FlowRegression) -> None:
        super().__init__(network)
        self.endpoint = settings.endpoint
        assert settings.decoder != "none"
        self.decoder = FlowDecoder(settings.decoder, network.endpoint_shapes([self.endpoint])[self.endpoint][0])
        self.freeze = settings.freeze
        if settings.freeze:
            network.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """As for any module, but a frozen network stays in eval mode, because training changes its statistics."""
        super().train(mode)
        if self.freeze:
            self.network.eval()
        return self

    def forward(self, clip: torch.Tensor, names: tuple[str, ...]) -> Outputs:
        """Tensors by endpoint, and ``predicted_flow`` (B, 3, T', H', W'): magnitude, sin θ, cos θ."""
        outputs = super().forward(clip, (*names, self.endpoint))
        return {**outputs, PREDICTION: self.decoder(outputs[self.endpoint])}


def flow_loss(predicted: torch.Tensor, flow: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared error of (magnitude, sin θ, cos θ), the sine and cosine weighted by the magnitude (D3D, section 3.1).

    Args:
        predicted: (B, 3, T', H', W'), the magnitude in the unit of ``flow``.
        flow: (B, 2, T, H, W), resampled here to the prediction's size by averaging.

    Returns:
        The mean of the weighted squared errors over all elements, and the end-point error in the unit of ``flow`` (the
        mean distance of the vectors after converting back to (u, v)).
    """
    predicted = predicted.float()
    target_flow = F.adaptive_avg_pool3d(flow, (predicted.shape[2], predicted.shape[3], predicted.shape[4]))
    target = flow_to_polar(target_flow)
    magnitude = target[:, :1]
    weights = torch.cat([torch.ones_like(magnitude), magnitude, magnitude], dim=1)
    loss = (weights * (predicted - target).square()).mean()
    error = (polar_to_flow(predicted.detach()) - target_flow).square().sum(dim=1).sqrt().mean()
    return loss, error


def longer(polar: torch.Tensor, factor: float) -> torch.Tensor:
    """(magnitude, sin θ, cos θ) (B, 3, T, H, W) with the magnitude multiplied by a factor."""
    return torch.cat([polar[:, :1] * factor, polar[:, 1:]], dim=1)


class FlowRegressionObjective:
    """action_weight · cross-entropy + weight · flow loss (D3D, Table 6's flow rows).

    Args:
        settings: endpoint, decoder, unit, weights.
        modality: what the network sees, ``rgb`` or ``flow``.
        bound: pixels of the batch's unit of flow, which is the motion kind's bound; 1 measures in that unit.
    """

    views = None

    def __init__(self, settings: FlowRegression, modality: str = "rgb", bound: float = 1.0) -> None:
        self.settings, self.modality, self.bound = settings, modality, bound
        # A network may also see the flow that it decodes: D3D measures what its layers keep of it (Table 1, row
        # "Flow").
        self.modalities: tuple[str, ...] = tuple(dict.fromkeys((modality, "flow")))

    def attach(self, network: nn.Module) -> EndpointForward:
        """The network with a decoder.

        Raises:
            UserError: the network has no such endpoint, or there is no decoder and the endpoint is not flow.
        """
        check_endpoint(network, self.settings.endpoint, "network")
        assert isinstance(network, VideoNetwork)
        if self.settings.decoder != "none":
            return DecodedForward(network, self.settings)
        if network.endpoint_shapes([self.settings.endpoint])[self.settings.endpoint][0] != 3:
            raise UserError(
                f"objective.decoder: none needs an endpoint that is flow itself, as predicted_flow of "
                f"s3dg_predicted_flow; {self.settings.endpoint} is not"
            )
        return EndpointForward(network)

    def losses(self, student: Forward, batch: Outputs, teacher: Forward | None = None) -> Outputs:
        """``total``, ``action``, ``flow``, ``endpoint_error`` (in the settings' unit) and ``top1``."""
        assert teacher is None
        decoded = self.settings.decoder != "none"
        outputs = student(batch[self.modality], () if decoded else (self.settings.endpoint,))
        logits = outputs["logits"].float()
        action = F.cross_entropy(logits, batch["labels"])
        predicted, target = outputs[PREDICTION if decoded else self.settings.endpoint], batch["flow"]
        if self.bound != 1.0:
            # A decoder learns the unit of its target. Flow that the network predicts for itself has the unit of flow
            # clips, because a temporal stream reads it.
            predicted = predicted if decoded else longer(predicted.float(), self.bound)
            target = target * self.bound
        flow, error = flow_loss(predicted, target)
        return {
            "total": self.settings.action_weight * action + self.settings.weight * flow,
            "action": action.detach(),
            "flow": flow.detach(),
            "endpoint_error": error,
            "top1": top1(logits, batch["labels"]),
        }


def build(specification: TrainingSpecification) -> FlowRegressionObjective:
    """The objective of a specification.

    Raises:
        UserError: the unit is pixels and the specification has no motion kind, whose bound says how many they are.
    """
    settings = specification.objective
    assert isinstance(settings, FlowRegression)
    bound = 1.0
    if settings.unit == "pixels":
        if specification.motion_kind is None:
            raise UserError("objective.unit: pixels need the motion kind's bound; the specification has no motion_kind")
        bound = specification.motion_kind.bound
    return FlowRegressionObjective(settings, specification.modality, bound)
