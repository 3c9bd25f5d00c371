"""Every network by name: which module builds it, and with which options. Plain data; nothing is imported."""

import re
from collections.abc import Iterator
from typing import Any

from pipeline_lib.errors import UserError

INCEPTION = "pipeline_lib.models.inception3d"

# I3D's stem spans seven frames; the released S3D code's three (TF-slim s3dg.py).
_I3D: dict[str, Any] = {"convolution": "full", "stem_kernel": 7}
_S3D: dict[str, Any] = {"convolution": "separable", "stem_kernel": 3, "temporal_branches": 4}
_I2D: dict[str, Any] = {"first_temporal_layer": 11, "last_temporal_layer": -1}
_S3DG: dict[str, Any] = {"convolution": "separable", "stem_kernel": 3, "gating": True}

_INCEPTIONS: dict[str, dict[str, Any]] = {
    "i3d": _I3D,
    "i2d": _I3D | _I2D,
    # The network whose public weights users have.
    "s3d": {"convolution": "separable", "stem_kernel": 7, "variant": "torchvision"},
    "s3d_slim": _S3D | {"temporal_branches": 2},
    "s3d_four_branches": _S3D,
    "fast_s3d": _S3D | {"first_temporal_layer": 9},
    "s3dg": _S3DG,
    "nl_s3dg": _S3DG | {"non_local": True},
}
for _k in range(11):
    # Layer K itself is 3D in both: K = 0 top-heavy and K = 10 bottom-heavy are the whole network in 3D.
    for _family, _options in (("i3d", _I3D), ("s3d", _S3D)):
        _INCEPTIONS[f"top_heavy_{_family}_k{_k}"] = _options | {"first_temporal_layer": _k}
        _INCEPTIONS[f"bottom_heavy_{_family}_k{_k}"] = _options | {"last_temporal_layer": _k}

_NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {name: (INCEPTION, opts) for name, opts in _INCEPTIONS.items()}


def names() -> Iterator[str]:
    """Every name that ``resolve`` knows, family by family."""
    yield from _NETWORKS


def resolve(name: str) -> tuple[str, dict[str, Any]]:
    """The module whose ``build(num_classes, in_channels, **options)`` makes the network, and the options.

    Top- and bottom-heavy networks (002, Fig. 2): K counts the layers from the pixels, 0 (stem) … 10
    (``Mixed_5c``). ``top_heavy_*_kK`` has layers K … 10 in 3D, ``bottom_heavy_*_kK`` layers 0 … K; layer K itself
    always is 3D. ``fast_s3d`` is the top-heavy S3D with its top two layers in 3D (§4.4), so K = 9.

    Raises:
        UserError: no such network; the message names those that sound alike.
    """
    try:
        module, options = _NETWORKS[name]
    except KeyError:
        words = set(re.split(r"[_\d]+", name.lower())) - {""}
        alike = [known for known in _NETWORKS if words & set(re.split(r"[_\d]+", known))] or list(_NETWORKS)
        raise UserError(
            f"model.name: no network is called {name!r}; did you mean one of {', '.join(alike[:12])}? "
            "`python -m pipeline_lib models` lists all"
        ) from None
    return module, dict(options)
