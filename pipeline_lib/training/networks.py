"""Networks by specification: built, initialised, loaded for evaluation."""

import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline_lib.clips.batches import CHANNELS
from pipeline_lib.configuration.objectives import Model
from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.models.catalogue import resolve
from pipeline_lib.models.inflation import inflate, is_new
from pipeline_lib.models.network import FeatureHead, VideoNetwork
from pipeline_lib.training.weights import load_weights


def build_network(model: Model, num_classes: int, modality: str, dropout: float = 0.0) -> nn.Module:
    """A network with random weights, drawn from torch's global generator.

    Args:
        model: name in the catalogue, and options of the family's builder.
        num_classes: size of the logits.
        modality: ``rgb`` (3 channels) or ``flow`` (2 channels).
        dropout: probability before the classifier.

    Raises:
        UserError: the name or an option is unknown.
    """
    return _built(model, num_classes, CHANNELS[modality], dropout)


def build_pathway(model: Model, in_channels: int) -> VideoNetwork:
    """A motion pathway with random weights, drawn from torch's global generator; the caller replaces its classifier.

    Raises:
        UserError: the name or an option is unknown.
    """
    return _built(model, 1, in_channels, 0.0)


def _built(model: Model, num_classes: int, in_channels: int, dropout: float) -> VideoNetwork:
    module, options = resolve(model.name)
    options |= model.options
    if options.get("dropout") is None:
        options["dropout"] = dropout
    network: VideoNetwork = importlib.import_module(module).build(num_classes, in_channels, **options)
    return network


def initialise(network: nn.Module, path: Path) -> list[str]:
    """Copy weights from another run or from an imported file, whose image network is inflated (``inflate``).

    A classifier that the source lacks, or has for other classes, stays random. Parts that only this network has stay
    random too: ``added_parts``, such as a flow predictor before a stream, and what image networks lack, such as gates.

    Args:
        network: changed in place.
        path: the weights.

    Returns:
        Names of the tensors that stayed random.

    Raises:
        UserError: the weights are of another network.
    """
    tensors, metadata = load_weights(path)
    is_image = bool(metadata.get("two_dimensional"))
    if is_image:
        assert isinstance(network, VideoNetwork)
        tensors = inflate(tensors, network)
    own = network.state_dict()
    differing = [name for name, tensor in tensors.items() if name in own and own[name].shape != tensor.shape]
    absent = sorted(set(own) - set(tensors))
    # A network that adds parts to another one starts from that one's weights.
    own_parts = ("head.", *getattr(network, "added_parts", ()))

    def may_differ(name: str) -> bool:
        return name in own and (name.startswith(own_parts) or (is_image and is_new(name)))

    wrong = sorted(name for name in {*(set(own) ^ set(tensors)), *differing} if not may_differ(name))
    if wrong:
        shown = ", ".join(wrong[:4]) + (f" and {len(wrong) - 4} more" if len(wrong) > 4 else "")
        remedy = "Model and options must be those of the source; only the number of classes may differ."
        if is_image:
            remedy = "It must be an image network of this network's family, with its widths."
            if all(name.endswith(".norm.weight") for name in wrong):
                fits = "true" if wrong[0] in tensors else "false"
                remedy = f"Only the scale of the normalisations differs: set the option norm_scale to {fits}."
        raise UserError(f"start: {path} holds another network: {shown} differ. {remedy}")
    network.load_state_dict({name: tensor for name, tensor in tensors.items() if name not in differing}, strict=False)
    return sorted([*differing, *absent])


def grouped(names: Sequence[str], most: int = 6) -> str:
    """Names of tensors for a line of a log; if they are many, the parts of the network that hold them.

    The parts are as small as possible without being more than ``most``; each has the number of its tensors.
    """
    if len(names) <= most:
        return ", ".join(names)
    split = [name.split(".") for name in names]
    for depth in range(max(map(len, split)) - 1, 0, -1):
        parts = Counter(".".join(parts[:depth]) for parts in split)
        if len(parts) <= most or depth == 1:
            break
    return ", ".join(f"{part} ({count})" for part, count in parts.items())


def load_network(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """A trained network in eval mode, and its file's metadata (specification, provenance, classes, input).

    Raises:
        UserError: the file is missing, damaged, or not from this pipeline's training.
    """
    tensors, metadata = load_weights(path)
    if "specification" not in metadata or "classes" not in metadata:
        raise UserError(f"{path} has no specification in its metadata; it was not made by the train command")
    specification = TrainingSpecification.model_validate(metadata["specification"], strict=False)
    network = build_network(specification.model, len(metadata["classes"]), specification.modality)
    if not specification.objective.has_classifier:
        network.head = FeatureHead()
    load_state(network, tensors, path)
    network.eval().requires_grad_(False)
    return network, metadata


def load_state(network: nn.Module, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Fill a network with a file's tensors.

    Raises:
        UserError: names or shapes differ.
    """
    try:
        network.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit the network that its metadata describes: {error}") from error
