"""Public networks that predict as they are: an imported checkpoint, with the clips that its publisher judged it by."""

from pathlib import Path

import torch

from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.configuration.data import FrameFormat
from pipeline_lib.configuration.experiments import IMPORTED, PUBLISHERS
from pipeline_lib.configuration.objectives import Classification, Model
from pipeline_lib.configuration.root import Hardware
from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.configuration.training import Optimiser, Recipe, Sampling, Schedule
from pipeline_lib.device import choose_device
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.trained import TrainedNetwork
from pipeline_lib.models.importing.availability import fetched, unfetchable
from pipeline_lib.models.importing.sources import SOURCES, find_source
from pipeline_lib.training.networks import build_network, load_state
from pipeline_lib.training.public_weights import import_checkpoint
from pipeline_lib.training.weights import load_metadata, load_weights

FRAMES = FrameFormat(short_side=256, jpeg_quality=95)
"""How frames are kept before they are resized as the publisher did: larger than any clip, with hardly a loss."""


def is_public(name: str) -> bool:
    """Whether a name is that of imported weights: ``torchvision/r2plus1d_18``, ``imported/NAME``."""
    return name.startswith((*PUBLISHERS, IMPORTED))


def find_imported(layout: Layout, name: str) -> Path:
    """The imported weights of that name; a public checkpoint that is not imported yet is imported now.

    Its file is taken from where downloads lie, or fetched.

    Args:
        layout: of the output root.
        name: of a source (``torchvision/r2plus1d_18``), or ``imported/NAME``.

    Raises:
        UserError: there are no such weights, and they cannot be fetched: the message has the ways out.
    """
    name = name.removeprefix(IMPORTED)
    path = layout.imported(name)
    if path.is_file():
        return path
    if not name.startswith(PUBLISHERS):
        by_hand = f"python -m pipeline_lib weights import SOURCE FILE --out {path}"
        raise UserError(f"{path} is missing: make it with `{by_hand}`.")
    source = find_source(name)
    problem = unfetchable(name, source, layout)
    if problem is not None:
        own = f"name a file of your own, the path of a weights.safetensors or imported/NAME in place of {name}"
        ways = problem.with_ways_out(own, "take a trained experiment by its name")
        raise UserError(f"The weights `{name}` are not there, and {ways}")
    import_checkpoint(name, fetched(name, source, layout, path), path)
    return path


def holds_public(path: Path) -> bool:
    """Whether a weights file was made by ``weights import``, and not by a training."""
    metadata = load_metadata(path)
    return "source" in metadata and "specification" not in metadata


def load_public(path: Path, wanted_device: str | None = None) -> TrainedNetwork:
    """The network of imported weights, ready to judge clips.

    Its specification is that of a training which takes clips as the publisher judged the network by
    (``Source.clip``). Classes whose names the publisher's file does not say are called by their number.

    Args:
        path: as ``weights import`` wrote it.
        wanted_device: ``auto``, ``cpu`` or ``cuda``; None is ``auto``.

    Raises:
        UserError: the file is missing or damaged, it has no classifier, or nobody says how its clips are taken.
    """
    tensors, metadata = load_weights(path)
    name, count = str(metadata.get("source")), metadata.get("num_classes")
    if metadata.get("two_dimensional") or not count:
        raise UserError(
            f"{path} ({name}) has no classifier of videos: it predicts nothing by itself. Train on it: `start: {name}` "
            "in an experiment (docs/models.md)."
        )
    source = SOURCES.get(name)
    if source is None or source.clip is None:
        known = ", ".join(key for key, one in SOURCES.items() if one.clip is not None)
        raise UserError(
            f"{path} ({name}): its publisher does not say how clips are taken, so nothing can be predicted with it. "
            f"Known for: {known}."
        )
    model = Model.model_validate(metadata["model"])
    modality = str(metadata.get("input", {}).get("modality", "rgb"))
    if modality != "rgb":
        raise UserError(f"{path} sees flow, and does not say of which kind: it can only be a start of a training.")
    specification = TrainingSpecification(
        experiment=name,
        stage="imported",
        split=1,
        seed=0,
        dataset="",
        horizontal_flip="forbidden",
        num_shards=1,
        frame_format="",
        modality=modality,
        motion=None,
        motion_kind=None,
        model=model,
        recipe=Recipe(
            source=source.about,
            optimiser=Optimiser(),
            schedule=Schedule(base_rate=1.0),
            steps=1,
            global_batch=1,
            sampling=Sampling(**source.clip),
        ),
        objective=Classification(),
        teacher=None,
        start="random",
        hardware=Hardware(),
    )
    network = build_network(model, int(count), modality)
    load_state(network, tensors, path)
    names = metadata.get("classes") or [f"class {label}" for label in range(int(count))]
    device = choose_device(wanted_device or "auto")
    network = network.to(device).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    network.eval().requires_grad_(False)
    return TrainedNetwork(network, tuple(map(str, names)), specification, metadata, device)
