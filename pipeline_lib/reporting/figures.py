"""Line drawings of the report: training curves, and differences with their intervals."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from pipeline_lib.reporting.collect import Curve
from pipeline_lib.reporting.compare import Comparison
from pipeline_lib.tasks.drawing import COLOURS, INK, STYLE, svg


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Centred moving mean that ignores NaN and shrinks at the ends."""
    if window <= 1 or len(values) <= 2:
        return values
    half = window // 2
    with np.errstate(invalid="ignore"):
        result = [
            np.nanmean(piece) if np.isfinite(piece := values[max(0, i - half) : i + half + 1]).any() else np.nan
            for i in range(len(values))
        ]
    return np.array(result)


def _draw_curve(axes: Axes, curve: Curve, name: str, colour: str, label: str) -> None:
    values = curve.values[name]
    window = max(1, len(values) // 25)
    if window > 1:
        axes.plot(curve.steps, values, color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(curve.steps, smoothed(values, window), color=colour, linewidth=1.6, label=label)


def training_curves(curves: dict[str, list[Curve]]) -> Markup:
    """One panel per experiment: the loss and its parts over the steps, every run of it."""
    names = list(curves)
    columns = min(3, max(1, len(names)))
    rows = -(-len(names) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.9 * columns, 2.6 * rows), layout=ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.08))
        grid = figure.subplots(rows, columns, squeeze=False)
        for position, axes in enumerate(grid.flat):
            if position >= len(names):
                axes.set_visible(False)
                continue
            name = names[position]
            axes.set_title(name, pad=8)
            axes.grid(axis="y")
            parts = [
                part
                for part in curves[name][0].values
                if part not in ("rate", "top1", "knn_top1", "positive") and "time" not in part
            ]
            parts.sort(key=lambda part: (part != "total", part))
            for number, part in enumerate(parts):
                for repeat, curve in enumerate(curves[name]):
                    if part in curve.values:
                        label = ("loss" if part == "total" else part) if repeat == 0 else "_"
                        _draw_curve(axes, curve, part, COLOURS[number % len(COLOURS)], label)
            axes.set_xlabel("step")
            axes.set_ylim(bottom=0)
            # Space above the lines for the legend, which a single line does not need.
            axes.set_ylim(top=(1.3 if len(parts) > 1 else 1.08) * axes.get_ylim()[1])
            if len(parts) > 1:
                axes.legend(loc="upper center", ncols=min(3, len(parts)), handlelength=1.2, columnspacing=1.2)
        return svg(figure, "curves", "Training loss over the steps, a panel per experiment")


def training_accuracy(curves: dict[str, list[Curve]], quantity: str, label: str) -> Markup | None:
    """A share of the training clips over the steps, a line per experiment; None if none is logged.

    Args:
        curves: logs by experiment.
        quantity: its name in the log, a share in [0, 1].
        label: of the axis.
    """
    shown = {name: runs for name, runs in curves.items() if any(quantity in run.values for run in runs)}
    if not shown:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.8, 3.0), layout="constrained")
        axes = figure.subplots()
        axes.grid(axis="y")
        for number, (name, runs) in enumerate(shown.items()):
            for repeat, run in enumerate(runs):
                if quantity in run.values:
                    scaled = Curve(run.label, run.steps, {quantity: 100 * run.values[quantity]})
                    entry = name if repeat == 0 else "_"
                    _draw_curve(axes, scaled, quantity, COLOURS[number % len(COLOURS)], entry)
        axes.set_ylim(0, 101)
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return svg(figure, f"accuracy {quantity}", f"{label.removesuffix(', %')} over the steps")


def differences(comparisons: Sequence[Comparison], figure_label: str) -> Markup | None:
    """Each difference with its 95 % interval, in percentage points; None if there is none."""
    shown = [entry for entry in comparisons if entry.difference is not None]
    if not shown:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.8, 0.75 + 0.36 * len(shown)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.grid(axis="x")
        for row, entry in enumerate(shown):
            assert entry.difference is not None
            mean, low, high = (100 * v for v in (entry.difference.mean, entry.difference.low, entry.difference.high))
            colour = {"better": COLOURS[2], "worse": COLOURS[5]}.get(entry.verdict, COLOURS[7])
            axes.plot([low, high], [row, row], color=colour, linewidth=2.2, solid_capstyle="butt")
            axes.plot([mean], [row], "o", color=colour, markersize=7)
        axes.set_yticks(range(len(shown)), [entry.label for entry in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"difference in {figure_label}, percentage points")
        return svg(figure, "differences", f"Differences in {figure_label} with their 95 % intervals")
