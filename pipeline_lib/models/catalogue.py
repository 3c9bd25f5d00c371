"""Every network by name: which module builds it, with which options. This is plain data; no network is imported."""

import re
from collections.abc import Iterator
from typing import Any

from pipeline_lib.configuration.networks import NetworkKind
from pipeline_lib.errors import UserError
from pipeline_lib.models.options import (
    InceptionOptions,
    MViTOptions,
    PredictedFlowOptions,
    ResNetOptions,
    SlowOptions,
    SwinOptions,
)

SHAPES_NO_ARTEFACT = True

INCEPTION = "pipeline_lib.models.inception3d"
RESNET = "pipeline_lib.models.resnet3d"
SLOW = "pipeline_lib.models.slow_resnet"
PREDICTED_FLOW = "pipeline_lib.models.predicted_flow"
MVIT = "pipeline_lib.models.mvit"
SWIN = "pipeline_lib.models.swin3d"

# Both families of S3D-G's Figure 4: the stem spans seven frames (Figure 2). The separable family factorises "each 3D
# convolution" (section 4.4), so the stem's too, and has temporal convolutions in all four branches (footnote 5).
_I3D: dict[str, Any] = {"convolution": "full", "stem_kernel": 7}
_S3D: dict[str, Any] = {"convolution": "separable", "stem_kernel": 7, "separable_stem": True, "temporal_branches": 4}
_I2D: dict[str, Any] = {"first_temporal_layer": 11, "last_temporal_layer": -1}
# Section 4.6: a gate with a bias "directly after each of the [k, 1, 1] temporal convolutions", so after the stem's too.
_S3DG: dict[str, Any] = _S3D | {"gates": "temporal_convolutions", "gate_bias": True}
# TF-slim's s3dg.py, which D3D's authors used: a stem of one 3×7×7 convolution, temporal convolutions in two branches,
# gates without bias at the end of all four.
_SLIM: dict[str, Any] = {"convolution": "separable", "stem_kernel": 3, "temporal_branches": 2}
_SLIM_G: dict[str, Any] = _SLIM | {"gates": "branches"}

_INCEPTIONS: dict[str, dict[str, Any]] = {
    "i3d": _I3D,
    "i2d": _I3D | _I2D,
    "s3d_paper": _S3D,
    "fast_s3d": _S3D | {"first_temporal_layer": 9},
    "s3dg_paper": _S3DG,
    "s3d_slim": _SLIM,
    "s3dg_slim": _SLIM_G,
    "nl_s3dg": _SLIM_G | {"non_local": True},
    # The network of the public weights.
    "torchvision/s3d": {
        "convolution": "separable",
        "stem_kernel": 7,
        "separable_stem": True,
        "variant": "torchvision",
    },
}
for _k in range(11):
    # Layer K itself is 3D in both: K = 0 top-heavy and K = 10 bottom-heavy are the whole network in 3D.
    for _family, _options in (("i3d", _I3D), ("s3d", _S3D)):
        _INCEPTIONS[f"top_heavy_{_family}_k{_k}"] = _options | {"first_temporal_layer": _k}
        _INCEPTIONS[f"bottom_heavy_{_family}_k{_k}"] = _options | {"last_temporal_layer": _k}

# Kinds of conv1 … conv5 (R(2+1)D, Figure 1, section 3.4). MCx is 2D from group x on, rMCx before; MC1 would be f-R2D.
_KINDS: dict[str, list[str]] = {"r2d": ["2d"] * 5, "f_r2d": ["2d"] * 5}
for _x in range(2, 6):
    _KINDS[f"mc{_x}"] = ["3d"] * (_x - 1) + ["2d"] * (6 - _x)
for _x in range(2, 6):
    _KINDS[f"rmc{_x}"] = ["2d"] * (_x - 1) + ["3d"] * (6 - _x)
_KINDS |= {"r3d": ["3d"] * 5, "r2plus1d": ["2plus1d"] * 5}

_RESNETS: dict[str, dict[str, Any]] = {
    f"{_name}_{_depth}": {"kinds": _kinds, "depth": _depth} | ({"fold_time": True} if _name == "r2d" else {})
    for _depth in (18, 34)
    for _name, _kinds in _KINDS.items()
}
# The networks of torchvision's public weights (torchvision/models/video/resnet.py): another ε, and one M per block.
_VISION: dict[str, Any] = {"batch_norm_eps": 1e-5, "width_rule": "torchvision"}
_RESNETS |= {f"torchvision/{_name}_18": _RESNETS[f"{_name}_18"] | _VISION for _name in ("r3d", "mc3", "r2plus1d")}

# MoDist, Table 1. The motion pathway's default reads frame by frame, as the table's kernels (1×7²) and widths say.
_MODIST: dict[str, Any] = {"stem_kernel": 5, "stem_temporal_stride": 2, "temporal_kernels": [1, 1, 3, 3]}
_MOTION: dict[str, Any] = {"depth": 50, "temporal_kernels": [1, 1, 1, 1], "width": 8, "dropout": 0.0}
_SLOWS: dict[str, dict[str, Any]] = {
    "modist_r50": _MODIST | {"depth": 50},
    "modist_r18": _MODIST | {"depth": 18},
    "slow_r50": {"depth": 50, "temporal_kernels": [1, 1, 3, 3]},
    "modist_motion_r50": _MOTION | {"frames": "per_frame"},
    "modist_motion_r50_stacked": _MOTION | {"frames": "stacked", "num_frames": 16},
}
# The image networks, on every frame: what files of 2D ResNets hold.
_SLOWS |= {f"resnet_{_depth}": {"depth": _depth, "temporal_kernels": [1, 1, 1, 1]} for _depth in (18, 34, 50)}

NETWORKS: dict[str, NetworkKind] = {
    name: NetworkKind(module, model, options)
    for module, model, family in (
        (INCEPTION, InceptionOptions, _INCEPTIONS),
        (RESNET, ResNetOptions, _RESNETS),
        (SLOW, SlowOptions, _SLOWS),
        (PREDICTED_FLOW, PredictedFlowOptions, {"s3dg_predicted_flow": {}}),
        # torchvision's networks under its names; the options' defaults are theirs.
        (MVIT, MViTOptions, {"torchvision/mvit_v2_s": {}}),
        (SWIN, SwinOptions, {"torchvision/swin3d_t": {}}),
    )
    for name, options in family.items()
}


def names() -> Iterator[str]:
    """Every name that ``resolve`` knows, family by family."""
    yield from NETWORKS


def resolve(name: str) -> tuple[str, dict[str, Any]]:
    """The module whose ``build(num_classes, in_channels, **options)`` makes the network, and all its options.

    Top- and bottom-heavy networks (S3D-G, Figure 2): K counts the layers from the pixels, 0 (stem) … 10
    (``Mixed_5c``). ``top_heavy_*_kK`` has layers K … 10 in 3D, ``bottom_heavy_*_kK`` layers 0 … K; layer K itself
    always is 3D. ``fast_s3d`` is the top-heavy S3D with its top two layers in 3D (section 4.4), so K = 9.

    Raises:
        UserError: there is no such network; the message names similar ones.
    """
    try:
        module, model, options = NETWORKS[name]
    except KeyError:
        words = set(re.split(r"[_/\d]+", name.lower())) - {""}
        alike = [known for known in NETWORKS if words & set(re.split(r"[_/\d]+", known))] or list(NETWORKS)
        raise UserError(
            f"model.name: no network is called {name!r}; did you mean one of {', '.join(alike[:12])}? "
            "`python -m pipeline_lib models` lists all"
        ) from None
    return module, model.model_validate(options).model_dump(mode="json")
