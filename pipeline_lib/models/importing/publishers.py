"""The public weights that can be imported: what they are, which network they fill, how their input was normalised."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline_lib.artefacts.digest import file_digest
from pipeline_lib.errors import UserError
from pipeline_lib.models.catalogue import INCEPTION, MVIT, RESNET, SLOW, SWIN, resolve
from pipeline_lib.models.importing import names
from pipeline_lib.models.importing.conversion import NameMap, average_stem, fit, inflate, rename, resolve_last
from pipeline_lib.models.network import VideoNetwork

# Mean and standard deviation on [0, 1]: torchvision's video presets (VideoClassification), PySlowFast's
# DATA.MEAN/STD, ImageNet's.
TORCHVISION_VIDEO = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
PYSLOWFAST = ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# [-1, 1] on [0, 1]; torchvision's googlenet maps its ImageNet-normalised input back to this (transform_input).
SYMMETRIC = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class Source:
    """One kind of public checkpoint.

    Attributes:
        model: the network that it fills by default.
        name_maps: module of a family → the map of tensor names into it.
        normalisation: mean and standard deviation of its input on [0, 1].
        about: where the file comes from, as text.
        torchvision: name of torchvision's weights, which know their address and classes; None for other sources.
        two_dimensional: whether it is an image network, to be inflated.
        options: options of the network that this source needs.
        url: where the file lies, if not at torchvision's.
    """

    model: str
    name_maps: Mapping[str, NameMap]
    normalisation: Normalisation
    about: str
    torchvision: str | None = None
    two_dimensional: bool = False
    options: Mapping[str, Any] | None = None
    url: str | None = None


_VIDEO_RESNET = {RESNET: names.torchvision_video_resnet}
_SLIM = {INCEPTION: names.slim}
_RESNET_2D = {SLOW: names.torchvision_resnet_to_slow, RESNET: names.torchvision_resnet_to_resnet3d}
_SLOWFAST = {SLOW: names.pyslowfast}

SOURCES: dict[str, Source] = {
    "torchvision/s3d": Source(
        "s3d", {INCEPTION: names.torchvision_s3d}, TORCHVISION_VIDEO, "Kinetics-400, torchvision", "s3d"
    ),
    "torchvision/r3d_18": Source("r3d_18", _VIDEO_RESNET, TORCHVISION_VIDEO, "Kinetics-400, torchvision", "r3d_18"),
    "torchvision/mc3_18": Source("mc3_18", _VIDEO_RESNET, TORCHVISION_VIDEO, "Kinetics-400, torchvision", "mc3_18"),
    "torchvision/r2plus1d_18": Source(
        "r2plus1d_18", _VIDEO_RESNET, TORCHVISION_VIDEO, "Kinetics-400, torchvision", "r2plus1d_18"
    ),
    "torchvision/mvit_v2_s": Source(
        "torchvision/mvit_v2_s",
        {MVIT: names.torchvision_transformer},
        PYSLOWFAST,
        "Kinetics-400, torchvision",
        "mvit_v2_s",
    ),
    "torchvision/swin3d_t": Source(
        "torchvision/swin3d_t",
        {SWIN: names.torchvision_transformer},
        IMAGENET,
        "Kinetics-400, torchvision",
        "swin3d_t",
    ),
    "kylemin/s3d": Source(
        "s3d", {INCEPTION: names.kylemin_s3d}, SYMMETRIC, "S3D_kinetics400.pt of github.com/kylemin/S3D"
    ),
    "slim/s3dg": Source(
        "s3dg_slim",
        _SLIM,
        SYMMETRIC,
        "S3D-G or D3D in TF-slim's names, exported to npz (github.com/princeton-vl/d3dhelper)",
    ),
    "slim/i3d": Source("i3d", _SLIM, SYMMETRIC, "I3D in TF-slim's names, exported to npz"),
    "slim/inception_v1": Source(
        "s3dg_slim",
        _SLIM,
        SYMMETRIC,
        "Inception v1, ImageNet, TF-slim (inception_v1_2016_08_28), exported to npz",
        two_dimensional=True,
    ),
    "pyslowfast/slow_r50": Source(
        "slow_r50", _SLOWFAST, PYSLOWFAST, "SlowOnly-R50 of PySlowFast's model zoo (.pkl or .pyth)"
    ),
    "maclr/slow_r50": Source(
        "modist_r50",
        _SLOWFAST,
        PYSLOWFAST,
        "maclr.pyth of github.com/amazon-science/self-supervised-maclr",
        url="https://aws-cv-sci-motion-public.s3.us-west-2.amazonaws.com/MaCLR/model_zoos/maclr.pyth",
    ),
    "torchvision/googlenet": Source(
        "s3d",
        {INCEPTION: names.torchvision_googlenet},
        SYMMETRIC,
        "Inception v1, ImageNet, torchvision",
        "googlenet",
        two_dimensional=True,
        options={"norm_scale": True},
    ),
}
for _depth, _model in ((18, "r3d_18"), (34, "r3d_34"), (50, "slow_r50")):
    SOURCES[f"torchvision/resnet{_depth}"] = Source(
        _model,
        _RESNET_2D,
        IMAGENET,
        f"ResNet-{_depth}, ImageNet, torchvision",
        f"resnet{_depth}",
        two_dimensional=True,
    )


def variant(name: str) -> tuple[str, str | None, str | None]:
    """Split ``SOURCE-NETWORK-flow`` (both parts after a dash may be left out) into source, network and modality.

    By such a name an experiment can start another network than the source's own from public weights, or a network that
    sees flow: ``torchvision/googlenet-s3dg-flow``.
    """
    source, *parts = name.split("-")
    modality = parts.pop() if parts and parts[-1] in ("rgb", "flow") else None
    if len(parts) > 1:
        raise UserError(f"{name!r} names no weights: write SOURCE, SOURCE-NETWORK, SOURCE-flow or SOURCE-NETWORK-flow")
    return source, parts[0] if parts else None, modality


def find_source(name: str) -> Source:
    """The source of that name.

    Raises:
        UserError: there is none; the message lists all.
    """
    if name not in SOURCES:
        raise UserError(f"no source of weights is called {name!r}; known are {', '.join(SOURCES)}")
    return SOURCES[name]


def address(source: Source) -> str | None:
    """The file's URL, or None if only a web page leads to it."""
    if source.torchvision is None:
        return source.url
    # Imported here, because the table needs no torchvision, whose import takes seconds.
    from torchvision.models import get_model_weights

    return str(next(iter(get_model_weights(source.torchvision))).url)


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

    Args:
        source: what the tensors are.
        tensors: as ``read_checkpoint`` gives them.
        model: a network by name; None is the source's own.
        options: options of the network's builder beyond the name's.
        in_channels: 3, or 2 to average the stem for flow.

    Returns:
        The state dictionary (without a head if the source has none that fits), and what it is for: ``model`` (name,
        options), ``num_classes`` (None without a head), ``in_channels``.

    Raises:
        UserError: the source does not fill such a network, or keys are missing, unexpected or mis-shaped.
    """
    name = model or source.model
    module, defaults = resolve(name)
    if module not in source.name_maps:
        raise UserError(f"these weights do not fill {name}; by default they fill {source.model}")
    renamed, unknown = rename(tensors, source.name_maps[module])
    chosen = {**(source.options or {}), **(options or {})}
    if module == INCEPTION and not source.two_dimensional and "stages.Conv2d_1a_7x7.spatial.conv.weight" in renamed:
        kernel = renamed["stages.Conv2d_1a_7x7.spatial.conv.weight"].shape[2]
        # Slim's released S3D-G have stems of 3 or 7 frames (first_temporal_kernel_size).
        if kernel > 1:
            chosen.setdefault("stem_kernel", kernel)
    head = next((t for n, t in renamed.items() if n in ("head.conv.weight", "head.fc.weight")), None)
    has_head = head is not None and not source.two_dimensional
    num_classes = len(head) if head is not None and has_head else 1
    try:
        network: VideoNetwork = importlib.import_module(module).build(num_classes, 3, **{**defaults, **chosen})
    except TypeError as error:
        raise UserError(f"options of {name}: {error}") from error
    renamed = resolve_last(renamed, network)
    if source.two_dimensional:
        state = inflate({n: t for n, t in renamed.items() if not n.startswith("head.")}, network)
        if unknown:
            raise UserError("the checkpoint has unexpected keys:\n" + "\n".join(f"  {n}" for n in sorted(unknown)))
    else:
        state = fit(renamed, network, unknown, needs_head=has_head)
    mean, std = (torch.tensor(values) for values in source.normalisation)
    # Clips here lie in [-1, 1]: ((x + 1) / 2 − mean) / std = x · 1/(2 std) + (1/2 − mean) / std.
    state["input_scale"], state["input_shift"] = 0.5 / std, (0.5 - mean) / std
    if in_channels != 3:
        stem = next(n for n, tensor in state.items() if tensor.dim() == 5)
        state = average_stem(state, in_channels, stem)
        state["input_scale"], state["input_shift"] = torch.ones(in_channels), torch.zeros(in_channels)
    about = {
        "model": {"name": name, "options": chosen},
        "num_classes": num_classes if has_head else None,
        "in_channels": in_channels,
    }
    return state, about
