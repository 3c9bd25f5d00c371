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
    there = np.isfinite(curve.values[name])
    steps, values = curve.steps[there], curve.values[name][there]
    if name.startswith("validation_"):
        # Few checks, each of many videos: dots, and no mean.
        axes.plot(steps, values, ".-", color=colour, linewidth=1.2, markersize=6, label=label)
        return
    window = max(1, len(values) // 25)
    if window > 1:
        axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(steps, smoothed(values, window), color=colour, linewidth=1.6, label=label)


SHARES = ("top1", "validation_top1", "knn_top1", "positive")
"""What a log holds beside losses: shares, which have drawings of their own, and a cosine."""
VALIDATION = "validation_loss"


def _num_points(curve: Curve, part: str) -> int:
    return int(np.isfinite(curve.values[part]).sum()) if part in curve.values else 0


def _losses(runs: Sequence[Curve]) -> list[str]:
    """The losses of an experiment that make a line, the whole first and that of the validation last.

    A single point makes none: a training of a few steps has only one line in its log.
    """
    names = dict.fromkeys(name for run in runs for name in run.values if name not in ("rate", *SHARES))
    drawn = [name for name in names if "time" not in name and max(_num_points(run, name) for run in runs) > 1]
    return sorted(drawn, key=lambda name: (name == VALIDATION, name != "total", name))


def training_curves(curves: dict[str, list[Curve]]) -> Markup | None:
    """One panel per experiment: the loss and its parts over the steps, every run of it, and the validation's loss.

    An experiment whose log has not two lines has no panel; None if none has.
    """
    shown = {name: parts for name, runs in curves.items() if (parts := _losses(runs))}
    names = list(shown)
    if not names:
        return None
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
            parts = shown[name]
            labels = {"total": "loss", VALIDATION: "validation"}
            for number, part in enumerate(parts):
                for repeat, curve in enumerate(curves[name]):
                    if part in curve.values:
                        label = labels.get(part, part) if repeat == 0 else "_"
                        colour = COLOURS[5] if part == VALIDATION else COLOURS[number % len(COLOURS)]
                        _draw_curve(axes, curve, part, colour, label)
            axes.set_xlabel("step")
            axes.set_ylim(bottom=0)
            # Space above the lines for the legend, which a single line does not need.
            axes.set_ylim(top=(1.3 if len(parts) > 1 else 1.08) * axes.get_ylim()[1])
            if len(parts) > 1:
                axes.legend(loc="upper center", ncols=min(3, len(parts)), handlelength=1.2, columnspacing=1.2)
        return svg(figure, "curves", "Training loss over the steps, a panel per experiment")


def training_accuracy(curves: dict[str, list[Curve]], quantity: str, label: str) -> Markup | None:
    """A share of clips or videos over the steps, a line per experiment; None if none is logged at two steps.

    Args:
        curves: logs by experiment.
        quantity: its name in the log, a share in [0, 1].
        label: of the axis.
    """
    shown = {name: runs for name, runs in curves.items() if max(_num_points(run, quantity) for run in runs) > 1}
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
