"""A public checkpoint as the state dictionary of a network here."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline_lib.artefacts.digest import file_digest
from pipeline_lib.errors import UserError
from pipeline_lib.models.catalogue import INCEPTION, resolve
from pipeline_lib.models.importing.conversion import fit, rename, resolve_last
from pipeline_lib.models.importing.sources import Source
from pipeline_lib.models.inflation import average_stem
from pipeline_lib.models.network import VideoNetwork


def classes(source: Source) -> list[str] | None:
    """Names of the classes, if it is known on which the source was trained."""
    if source.torchvision is None or source.two_dimensional:
        return None
    from torchvision.models import get_model_weights

    return [str(name) for name in next(iter(get_model_weights(source.torchvision))).meta["categories"]]


def check_digest(path: Path) -> None:
    """Compare a file with the eight digits of SHA-256 that torchvision puts into its names (``s3d-d76dad2f.pth``).

    Raises:
        UserError: they differ: the download was cut or the file was changed; or there is no such file.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    stem, _, digits = path.stem.rpartition("-")
    if not stem or len(digits) != 8 or set(digits) - set("0123456789abcdef"):
        return
    found = file_digest(path)
    if not found.startswith(digits):
        raise UserError(
            f"{path}: its SHA-256 starts with {found[:8]}, its name says {digits}: it is truncated or altered; "
            "fetch it again"
        )


def convert(
    source: Source,
    tensors: Mapping[str, Tensor],
    *,
    model: str | None = None,
    options: Mapping[str, Any] | None = None,
    in_channels: int = 3,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A checkpoint's tensors as the state dictionary of a network here.

    An image network becomes its 2D form here (kernels (out, in, 1, k, k)), without a classifier.

    Args:
        source: what the tensors are.
        tensors: as ``read_checkpoint`` gives them.
        model: a network of the source's family by name; None is the source's own.
        options: options of the network's builder beyond the name's.
        in_channels: 3, or 2 to average the stem for flow; 3 for an image network, which serves both.

    Returns:
        The state dictionary, and what it is for: ``model`` (name, options), ``two_dimensional``, ``num_classes`` (None
        without a head), ``in_channels``.

    Raises:
        UserError: the source does not fill such a network, or keys are missing, unexpected or mis-shaped.
    """
    if source.two_dimensional and (model is not None or in_channels != 3):
        raise UserError(
            "these are weights of an image network; one file serves every video network of its family, for RGB and for "
            "flow, and is inflated where a training starts from it: leave out --model and --modality"
        )
    name = model or source.model
    module, defaults = resolve(name)
    if module != resolve(source.model)[0]:
        raise UserError(f"these weights do not fill {name}; by default they fill {source.model}")
    renamed, unknown = rename(tensors, source.name_map)
    chosen = {**(source.options or {}), **(options or {})}
    if module == INCEPTION and not source.two_dimensional and "stages.Conv2d_1a_7x7.spatial.conv.weight" in renamed:
        kernel = renamed["stages.Conv2d_1a_7x7.spatial.conv.weight"].shape[2]
        # Slim's released S3D-G have stems of 3 or 7 frames (first_temporal_kernel_size).
        if kernel > 1:
            chosen.setdefault("stem_kernel", kernel)
    if source.two_dimensional:
        renamed = {key: tensor for key, tensor in renamed.items() if not key.startswith("head.")}
    head = next((t for n, t in renamed.items() if n in ("head.conv.weight", "head.fc.weight")), None)
    try:
        network: VideoNetwork = importlib.import_module(module).build(
            1 if head is None else len(head), 3, **{**defaults, **chosen}
        )
    except TypeError as error:
        raise UserError(f"options of {name}: {error}") from error
    state = fit(resolve_last(renamed, network), network, unknown, needs_head=head is not None)
    mean, std = (torch.tensor(values) for values in source.normalisation)
    # Clips here lie in [-1, 1]: ((x + 1) / 2 − mean) / std = x · 1/(2 std) + (1/2 − mean) / std.
    state["input_scale"], state["input_shift"] = 0.5 / std, (0.5 - mean) / std
    if in_channels != 3:
        stem = next(key for key, tensor in state.items() if tensor.dim() == 5)
        state = average_stem(state, in_channels, stem)
    about = {
        "model": {"name": name, "options": chosen},
        "two_dimensional": source.two_dimensional,
        "num_classes": None if head is None else len(head),
        "in_channels": in_channels,
    }
    return state, about
