"""Line drawings of the report as inline SVG, whose ink follows the page's light or dark theme.

Text and axes are drawn in one marker colour, which is replaced by ``currentColor``; the lines' colours are readable on
both grounds. No dates and no random ids: equal data gives equal bytes.
"""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from pipeline_lib.reporting.collect import Curve
from pipeline_lib.reporting.compare import Comparison

_INK = "#010203"
# Okabe & Ito's colours for the colour-blind, darkened or lightened to be seen on white and on near-black alike.
COLOURS = ("#3b82d6", "#e0782f", "#2e9e6b", "#c05bb5", "#c9a227", "#d1495b", "#5fb3d9", "#8a8f98")

_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": "#88888855",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def _svg(figure: Figure, name: str, description: str) -> Markup:
    """The figure as an SVG element that fits the page's width; ``description`` is read to those who cannot see it."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = text.replace(_INK, "currentColor")
    text = re.sub(r"font: ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font: \1inherit", text)
    text = re.sub(r"(font: [^;\"]*?)(['\"]?[A-Z][\w ]+['\"]?, )+sans-serif", r"\1system-ui, sans-serif", text)
    title = Markup("<title>{}</title>").format(description)
    text = re.sub(r"(<svg[^>]*?) width=\"[^\"]*\"", r"\1", text, count=1)
    text = re.sub(r"(<svg[^>]*?) height=\"[^\"]*\"", r"\1", text, count=1)
    width = figure.get_figwidth() * 72
    text = re.sub(r"<svg([^>]*)>", rf'<svg\1 role="img" style="max-width:{width:.0f}pt">{title}', text, count=1)
    return Markup(text)


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
    with mpl.rc_context(_STYLE):
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
            # Room above the lines for the legend, which one line alone does not need.
            axes.set_ylim(top=(1.3 if len(parts) > 1 else 1.08) * axes.get_ylim()[1])
            if len(parts) > 1:
                axes.legend(loc="upper center", ncols=min(3, len(parts)), handlelength=1.2, columnspacing=1.2)
        return _svg(figure, "curves", "Training loss over the steps, a panel per experiment")


def training_accuracy(curves: dict[str, list[Curve]], quantity: str, label: str) -> Markup | None:
    """A share of the training clips over the steps, a line per experiment; None where none is logged.

    Args:
        curves: logs by experiment.
        quantity: its name in the log, a share in [0, 1].
        label: of the axis.
    """
    shown = {name: runs for name, runs in curves.items() if any(quantity in run.values for run in runs)}
    if not shown:
        return None
    with mpl.rc_context(_STYLE):
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
        return _svg(figure, f"accuracy {quantity}", f"{label.removesuffix(', %')} over the steps")


def differences(comparisons: Sequence[Comparison]) -> Markup | None:
    """Each difference with its 95 % interval, in percentage points; None where there is none."""
    shown = [entry for entry in comparisons if entry.difference is not None]
    if not shown:
        return None
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.8, 0.75 + 0.36 * len(shown)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=_INK, linewidth=0.8)
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
        axes.set_xlabel("difference in Video@1, percentage points")
        return _svg(figure, "differences", "Differences in Video@1 with their 95 % intervals")


def class_differences(comparison: Comparison, limit: int = 30) -> Markup:
    """Accuracy of every class in both networks, joined by a line; of many classes the largest gains and losses."""
    rows = comparison.per_class
    if len(rows) > limit:
        rows = rows[: limit // 2] + rows[-(limit // 2) :]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.8, 0.9 + 0.27 * len(rows)), layout="constrained")
        axes = figure.subplots()
        axes.grid(axis="x")
        for row, entry in enumerate(rows):
            colour = COLOURS[2] if entry.difference > 0 else COLOURS[5] if entry.difference < 0 else COLOURS[7]
            axes.plot([100 * entry.second, 100 * entry.first], [row, row], color=colour, linewidth=2)
        positions = range(len(rows))
        second, first = comparison.second.name, comparison.first.name
        axes.plot([100 * r.second for r in rows], positions, "o", color=COLOURS[7], label=second, markersize=6)
        axes.plot([100 * r.first for r in rows], positions, "o", color=COLOURS[0], label=first, markersize=6)
        axes.set_yticks(positions, [f"{entry.name} ({entry.num_videos})" for entry in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(-3, 103)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("videos of the class recognised, %")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
        return _svg(figure, f"classes {comparison.label}", f"Accuracy per class: {comparison.label}")
