"""Grad-CAM: where in a clip a network sees what speaks for a class.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization" (ICCV 2017),
equations 1 and 2: an activation's channels are summed, each weighted by the mean gradient of the class's logit, and
negative sums are set to 0. MoDist (section 4.6, Figure 3) uses it on video, as PySlowFast does in
``slowfast/visualization/gradcam_utils.py``: the mean is over space alone, so that each time step has its own weights.
``over="space_time"`` takes it over time too, as captum and pytorch-grad-cam do. Where the classifier is a mean over the
activation and a linear layer, the two are equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.clips.dataset import ClipReader
from pipeline_lib.clips.index import ClipIndex
from pipeline_lib.clips.protocol_clips import ProtocolClips
from pipeline_lib.clips.sampling import PADDING
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.messages import nearest
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.prediction import DEFAULT_RATE, clip_probabilities
from pipeline_lib.evaluation.trained import TrainedNetwork
from pipeline_lib.models.network import LOGITS, HookedNetwork, StagedNetwork, VideoNetwork
from pipeline_lib.tasks.outputs import video_outputs

Over: TypeAlias = Literal["space", "space_time"]
"""What gradients are averaged over: space gives each time step weights of its own."""

LEAST_SIDE = 4
"""The endpoint that is taken by default has at least so many positions along height and width, if one has."""


@dataclass(frozen=True)
class GradCam:
    """What speaks for a class in the clips of a video, with the frames that the network saw.

    Attributes:
        experiment: the network's name.
        endpoint: whose activation is weighted.
        class_name: the class.
        probability: of the class, the mean of the clips' softmax, in [0, 1].
        maps: float32 (clips, T, H, W), at least 0, in the frames' resolution. Their unit is that of the logit over the
            number of the endpoint's positions; only ratios within one network have a meaning.
        frames: uint8 (clips, T, H, W, 3), RGB: the crop that the network saw; if it sees flow, the frames of that flow.
        seconds: float64 (clips, T), times of the frames; NaN where the video has ended and the clip holds nothing.
        frames_per_second: rate of the video.
        over: what gradients were averaged over.
    """

    experiment: str
    endpoint: str
    class_name: str
    probability: float
    maps: np.ndarray
    frames: np.ndarray
    seconds: np.ndarray
    frames_per_second: float
    over: Over

    @property
    def shares(self) -> np.ndarray:
        """The maps as shares of their largest value, float32 in [0, 1]; all 0 if nothing speaks for the class."""
        largest = float(self.maps.max())
        return self.maps / largest if largest > 0 else self.maps


def class_activation(network: VideoNetwork, clip_BCTHW: Tensor, endpoint: str, label: int, over: Over) -> Tensor | None:
    """The map of a class at an endpoint, in the endpoint's resolution.

    Args:
        network: in evaluation mode; its weights may be frozen. Nothing is computed backwards before the endpoint.
        clip_BCTHW: float clips.
        endpoint: an endpoint with time and space.
        label: number of the class.
        over: what gradients are averaged over.

    Returns:
        (B, T', H', W'), at least 0; None if the logit does not depend on the endpoint.
    """
    leaves: list[Tensor] = []

    def start_here(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        # MViT's blocks give their tokens and the shape of their grid.
        value, *others = output if isinstance(output, tuple) else (output,)
        leaves.append(value.detach().requires_grad_())
        # The network goes on with a copy, because a later layer may write into its input.
        copied = leaves[-1].clone()
        return (copied, *others) if isinstance(output, tuple) else copied

    handle = _module_of(network, endpoint).register_forward_hook(start_here)
    try:
        with torch.enable_grad():
            found = network.forward_endpoints(clip_BCTHW, [endpoint])
            (leaf,), activation = leaves, found[endpoint]
            # The clips of a batch do not see each other, so that the sum's gradient holds that of each.
            (gradient,) = torch.autograd.grad(found[LOGITS][:, label].sum(), leaf, retain_graph=True, allow_unused=True)
            if gradient is None:
                return None
            # An endpoint rearranges what its module gives (tokens become a grid) and may leave out a part (the class
            # token). The same is done to the gradient: the rearrangement is linear, so it is the derivative of its own
            # transpose.
            direction = torch.zeros_like(activation, requires_grad=True)
            (transposed,) = torch.autograd.grad(activation, leaf, direction, create_graph=True)
            (gradient,) = torch.autograd.grad(transposed, direction, gradient)
    finally:
        handle.remove()
    if not bool(gradient.any()):
        return None
    weights = gradient.float().mean((3, 4) if over == "space" else (2, 3, 4), keepdim=True)
    return F.relu((weights * activation.detach().float()).sum(1))


def _module_of(network: VideoNetwork, endpoint: str) -> nn.Module:
    """The module whose output an endpoint is."""
    if isinstance(network, StagedNetwork):
        return network.stages[endpoint]
    assert isinstance(network, HookedNetwork)
    return network.body.get_submodule(endpoint)


def endpoints_with_space(network: VideoNetwork, num_frames: int, side: int) -> dict[str, tuple[int, int]]:
    """Endpoints with more than one position for clips of this size, from the pixels up, and their height and width."""
    shapes = network.endpoint_shapes(None, num_frames, side)
    return {name: shape[2:] for name, shape in shapes.items() if len(shape) == 4 and max(shape[2:]) > 1}  # type: ignore[misc]


def _candidates(network: VideoNetwork, wanted: str | None, num_frames: int, side: int) -> list[str]:
    """The endpoint that is wanted, or those that are tried in turn.

    Raises:
        UserError: it has no extent in space.
    """
    spatial = endpoints_with_space(network, num_frames, side)
    if not spatial:
        raise UserError(f"no endpoint of this network has an extent in space for clips of {side}×{side} pixels.")
    if wanted is None:
        deepest_first = list(spatial)[::-1]
        return [name for name in deepest_first if min(spatial[name]) >= LEAST_SIDE] or deepest_first
    network.check_names([wanted])
    if wanted not in spatial:
        why = "is one number per class" if wanted == LOGITS else "has one position"
        raise UserError(
            f"endpoint {wanted} {why} for clips of {side}×{side} pixels, so that it cannot say where the network "
            f"looks; take one of {', '.join(spatial)}."
        )
    return [wanted]


def _label(trained: TrainedNetwork, class_name: str | None, probabilities: np.ndarray) -> int:
    """Number of the wanted class, or of the most probable one.

    Raises:
        UserError: there is no such class.
    """
    if class_name is None:
        return int(np.argmax(probabilities))
    if class_name not in trained.classes:
        raise UserError(
            f"{trained.specification.experiment} knows no class `{class_name}`. {nearest(class_name, trained.classes)}"
        )
    return trained.classes.index(class_name)


def grad_cam(
    trained: TrainedNetwork,
    index: ClipIndex,
    protocol: Protocol,
    class_name: str | None = None,
    endpoint: str | None = None,
    over: Over = "space",
) -> GradCam:
    """Grad-CAM of the first video of an index, in float32.

    Args:
        trained: a network with a classifier.
        index: with the video's frames, and its motion if the network sees flow.
        protocol: which clips.
        class_name: the class; None is the one that the network predicts.
        endpoint: one with an extent in space; None is the deepest with at least ``LEAST_SIDE`` positions along height
            and width on which the class depends.
        over: what gradients are averaged over.

    Raises:
        UserError: the network has no classifier, knows no such class or endpoint, or the endpoint has no extent in
            space or no influence on the class.
    """
    specification = trained.specification
    if not specification.objective.has_classifier:
        raise UserError(
            f"{specification.experiment} was trained without a classifier (objective {specification.objective.name}), "
            "so that there is no class to explain: take an experiment that fine-tunes it or trains a classifier on it."
        )
    network = trained.network
    assert isinstance(network, VideoNetwork)
    modality = specification.modality
    # One clip at a time: with what is kept for the gradients, a batch would need much more memory than an evaluation.
    clips = ProtocolClips(index, protocol, specification.recipe.sampling, [modality], clips_per_batch=1)
    requests = clips.of(0)
    first = requests[0]
    candidates = _candidates(network, endpoint, first.num_frames, first.crop)
    probabilities = clip_probabilities(trained, index, protocol).mean(axis=0)
    label = _label(trained, class_name, probabilities)

    def maps_at(name: str) -> Sequence[Tensor | None]:
        def forward(batch: dict[str, Tensor]) -> list[Tensor | None]:
            clip_BCTHW = batch[modality]
            found = class_activation(network, clip_BCTHW, name, label, over)
            if found is None:
                return [None] * len(clip_BCTHW)
            # Trilinear, as PySlowFast does.
            fine = F.interpolate(found[:, None], tuple(clip_BCTHW.shape[2:]), mode="trilinear", align_corners=False)
            return list(fine[:, 0].cpu())

        (video,) = video_outputs(clips, forward, trained.device)
        return video.outputs

    for name in candidates:
        maps = maps_at(name)
        if any(one is not None for one in maps):
            break
    else:
        raise UserError(
            f"the logit of `{trained.classes[label]}` does not depend on {', '.join(candidates)} of "
            f"{specification.experiment}. A transformer that classifies by its class token does not read the other "
            "tokens of its last block: take an endpoint before it."
        )
    reader = ClipReader(index, ["rgb"])
    frames = np.concatenate([reader.read([request])["rgb"].numpy() for request in requests])
    video = index.video(0)
    rate = video.frames_per_second or DEFAULT_RATE
    numbers = np.stack([request.indices(video.num_frames) for request in requests])
    if protocol.reverse:
        numbers = numbers[:, ::-1]
    return GradCam(
        experiment=specification.experiment,
        endpoint=name,
        class_name=trained.classes[label],
        probability=float(probabilities[label]),
        maps=np.stack([np.zeros(frames.shape[1:4], np.float32) if one is None else one.numpy() for one in maps]),
        frames=frames,
        seconds=np.where(numbers == PADDING, np.nan, numbers / rate),
        frames_per_second=rate,
        over=over,
    )
