"""The weights of a network's convolutions at each offset in time (S3D-G, section 4.3 and Figure 5).

The paper starts an I3D from a 2D network's weights, the same at every offset, and finds after training that low-level
filters "essentially ignore the temporal dimension" where higher ones spread over the offsets (caption of Figure 5). The
temporal convolutions of separable networks start as the identity instead: 1 or 0 at offset 0, 0 elsewhere.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from pipeline_lib.configuration.messages import nearest
from pipeline_lib.errors import UserError
from pipeline_lib.tasks.drawing import COLOURS

QUANTILES = (0.025, 0.25, 0.5, 0.75, 0.975)
"""Lower whisker, box, median, box and upper whisker. The paper does not say where its whiskers end."""
SHOWN = 4
"""Layers in a picture if none are named, as many as in the paper's."""
COLUMNS = 4


@dataclass(frozen=True)
class LayerWeights:
    """A convolution's weights by their offset in time.

    Attributes:
        layer: name of the convolution.
        offsets: frames from the output's, such as (-1, 0, 1).
        quantiles: float64 (offsets, 5), at ``QUANTILES``.
        spread: float64 (offsets,), standard deviation about 0: the root of the mean square.
    """

    layer: str
    offsets: tuple[int, ...]
    quantiles: np.ndarray
    spread: np.ndarray


def _by_number(name: str) -> list[tuple[int, str]]:
    """A key that sorts ``blocks.10`` after ``blocks.2``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def temporal_weights(tensors: Mapping[str, Tensor]) -> list[LayerWeights]:
    """Every 3D convolution longer than one frame, in the order of names, which is that from the pixels up.

    Args:
        tensors: name → tensor; a 3D convolution's are (out, in, T, H, W).

    Raises:
        UserError: there is none.
    """
    found = []
    for name in sorted(tensors, key=_by_number):
        tensor = tensors[name]
        if tensor.dim() != 5 or tensor.shape[2] < 2:
            continue
        length = tensor.shape[2]
        values = tensor.double().movedim(2, 0).flatten(1).numpy()
        found.append(
            LayerWeights(
                layer=name.removesuffix(".weight").removesuffix(".conv").removeprefix("stages."),
                offsets=tuple(range(-((length - 1) // 2), length // 2 + 1)),
                quantiles=np.quantile(values, QUANTILES, axis=1).T,
                spread=np.sqrt((values**2).mean(axis=1)),
            )
        )
    if not found:
        raise UserError("this network has no convolution over time: no kernel is longer than one frame.")
    return found


def chosen(layers: Sequence[LayerWeights], names: Sequence[str] | None) -> list[LayerWeights]:
    """The named layers, or some from the pixels up, evenly spread.

    Raises:
        UserError: a name is none of a layer.
    """
    if names is None:
        places = np.linspace(0, len(layers) - 1, min(SHOWN, len(layers))).round().astype(int)
        return [layers[place] for place in places]
    if list(names) == ["all"]:
        return list(layers)
    by_name = {entry.layer: entry for entry in layers}
    for name in names:
        if name not in by_name:
            raise UserError(f"there is no convolution over time called `{name}`. {nearest(name, by_name)}")
    return [by_name[name] for name in names]


def figure_of(layers: Sequence[LayerWeights], title: str) -> Figure:
    """A panel per layer: a box per offset, whiskers from the 2.5th to the 97.5th percentile."""
    columns = min(COLUMNS, len(layers))
    rows = -(-len(layers) // columns)
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(2.7 * columns + 0.4, 2.5 * rows + 0.6), layout="constrained")
        figure.suptitle(title, fontsize=11)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(layers) :]:
            axes.set_visible(False)
        for axes, entry in zip(grid.flat, layers, strict=False):
            boxes = [
                {"whislo": low, "q1": first, "med": median, "q3": third, "whishi": high}
                for low, first, median, third, high in entry.quantiles
            ]
            axes.bxp(
                boxes,
                positions=entry.offsets,
                widths=0.6,
                showfliers=False,
                patch_artist=True,
                boxprops={"facecolor": COLOURS[6], "linewidth": 0.8},
                medianprops={"color": "black", "linewidth": 1.4},
            )
            axes.axhline(0, color="0.6", linewidth=0.6, zorder=0)
            # Long names in two lines, at the point nearest to the middle.
            words = entry.layer.split(".")
            half = (len(words) + 1) // 2
            shown = entry.layer if len(words) < 3 else ".".join(words[:half]) + "\n." + ".".join(words[half:])
            axes.set_title(shown, fontsize=9)
            axes.set_xticks(entry.offsets)
            axes.tick_params(labelsize=9)
        for axes in grid[-1]:
            axes.set_xlabel("offset in time, frames")
        for axes in grid[:, 0]:
            axes.set_ylabel("weight")
    return figure
