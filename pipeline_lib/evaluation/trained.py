"""A trained network from its weights file, ready to judge clips."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.device import choose_device
from pipeline_lib.errors import UserError
from pipeline_lib.tasks.outputs import Forward
from pipeline_lib.training.networks import load_network
from pipeline_lib.training.weights import load_metadata


@dataclass(frozen=True)
class TrainedNetwork:
    """A network in evaluation mode on its device, with the metadata of its weights file.

    Attributes:
        network: frozen, ``channels_last_3d``.
        classes: class names in the order of its logits.
        specification: of the training that made it.
        provenance: of the weights file.
        device: where it lies.
    """

    network: nn.Module
    classes: tuple[str, ...]
    specification: TrainingSpecification
    provenance: dict[str, Any]
    device: torch.device

    def computed(self, forward: Forward) -> Forward:
        """``forward`` without gradients; on a GPU in the recipe's precision."""
        mixed = self.device.type == "cuda" and self.specification.recipe.precision == "bfloat16"

        # Around each batch: a generator that kept these modes would leave them on in whoever it hands its videos to.
        def run(batch: dict[str, torch.Tensor]) -> Any:
            with torch.inference_mode(), torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed):
                return forward(batch)

        return run


def load_trained(path: Path, wanted_device: str | None = None) -> TrainedNetwork:
    """Build the network of a weights file from its metadata.

    Args:
        path: ``weights.safetensors`` of a run.
        wanted_device: ``auto``, ``cpu`` or ``cuda``; None takes that of the training's specification.

    Raises:
        UserError: the file is missing or damaged, or its tensors do not fit the network that it names.
    """
    network, metadata = load_network(path)
    specification = _specification(metadata, path)
    try:
        classes, provenance = tuple(metadata["classes"]), dict(metadata["provenance"])
    except KeyError as error:
        raise _not_ours(path, error) from error
    device = choose_device(wanted_device or specification.hardware.device)
    network = network.to(device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    network.eval().requires_grad_(False)
    return TrainedNetwork(network, classes, specification, provenance, device)


def load_run(layout: Layout, wanted: TrainingSpecification) -> TrainedNetwork:
    """The network of a run, set up so that equal inputs give equal bytes on the CPU.

    Raises:
        UserError: the weights are missing, damaged, or of another run.
    """
    path = layout.weights(wanted.experiment, str(wanted.split), str(wanted.seed))
    trained = load_trained(path, wanted.hardware.device)
    made = trained.specification
    if (made.experiment, made.split, made.seed, made.model) != (
        wanted.experiment,
        wanted.split,
        wanted.seed,
        wanted.model,
    ):
        raise UserError(
            f"{path} holds {made.experiment} {made.split}-{made.seed} ({made.model.name}), not "
            f"{wanted.experiment} {wanted.split}-{wanted.seed} ({wanted.model.name}): train it again."
        )
    if trained.device.type == "cpu":
        # As in training, the order of float sums and so the last bits depend on the number of threads.
        torch.set_num_threads(wanted.hardware.num_threads)
        torch.use_deterministic_algorithms(True)
        # By default deterministic mode fills every new tensor, which finds bugs but costs time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return trained


def read_specification(path: Path) -> TrainingSpecification:
    """The specification of the training that made a weights file.

    Raises:
        UserError: the file is missing or damaged, or not from this pipeline's training.
    """
    return _specification(load_metadata(path), path)


def _specification(metadata: dict[str, Any], path: Path) -> TrainingSpecification:
    try:
        return TrainingSpecification.model_validate(metadata["specification"], strict=False)
    except (KeyError, ValueError) as error:
        raise _not_ours(path, error) from error


def _not_ours(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} does not say which network it holds (metadata specification, classes, provenance): it was not "
        f"made by this pipeline's trainer, or by an incompatible version of it ({error})."
    )
