"""Importing a public checkpoint: from a publisher's file to weights to start from and to predict with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline_lib.artefacts.digest import file_digest
from pipeline_lib.models.importing.checkpoint_files import read_checkpoint
from pipeline_lib.models.importing.publishers import check_digest, classes, convert
from pipeline_lib.models.importing.sources import find_source
from pipeline_lib.training.weights import save_weights


def import_checkpoint(
    name: str,
    file: Path,
    out: Path,
    model: str | None = None,
    options: Mapping[str, Any] | None = None,
    modality: str = "rgb",
) -> tuple[dict[str, Any], int]:
    """Convert a public checkpoint and write it as weights.

    Args:
        name: of the source.
        file: the checkpoint as its publisher wrote it.
        out: the ``.safetensors`` file to write.
        model: video network to fill; None is the source's own.
        options: of the network, beyond its name's.
        modality: ``flow`` averages a video network's stem over its input channels.

    Returns:
        What it is (``convert``), and how many numbers it holds.

    Raises:
        UserError: there is no such source or file, the file is damaged or carries code, or it does not fit the network.
    """
    source = find_source(name)
    check_digest(file)
    state, about = convert(
        source, read_checkpoint(file), model=model, options=options, in_channels=3 if modality == "rgb" else 2
    )
    labels = classes(source)
    metadata: dict[str, Any] = about | {
        "source": name,
        "source_digest": file_digest(file),
        "about": source.about,
        "classes": labels if labels is not None and len(labels) == about["num_classes"] else None,
        "input": {"range": [-1, 1], "modality": modality},
    }
    save_weights(out, state, metadata)
    return about | {"tensors": len(state)}, sum(tensor.numel() for tensor in state.values())
