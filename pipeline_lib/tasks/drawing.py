"""Drawings in a page: inline SVG whose colours follow the page's light or dark theme.

Text and axes are drawn in a marker colour, which ``currentColor`` replaces; the lines' colours are readable on light
and dark. There are no dates and no random ids, so that equal data gives equal bytes.
"""

import io
import re
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

INK = "#010203"
# Okabe & Ito's colours for the colour-blind, made darker or lighter to be readable on white and on near-black.
COLOURS = ("#3b82d6", "#e0782f", "#2e9e6b", "#c05bb5", "#c9a227", "#d1495b", "#5fb3d9", "#8a8f98")

STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#88888855",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def svg(figure: Figure, name: str, description: str) -> Markup:
    """The figure as an SVG element that fits the page's width; screen readers read ``description``."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = text.replace(INK, "currentColor")
    text = re.sub(r"font: ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font: \1inherit", text)
    text = re.sub(r"(font: [^;\"]*?)(['\"]?[A-Z][\w ]+['\"]?, )+sans-serif", r"\1system-ui, sans-serif", text)
    title = Markup("<title>{}</title>").format(description)
    text = re.sub(r"(<svg[^>]*?) width=\"[^\"]*\"", r"\1", text, count=1)
    text = re.sub(r"(<svg[^>]*?) height=\"[^\"]*\"", r"\1", text, count=1)
    width = figure.get_figwidth() * 72
    text = re.sub(r"<svg([^>]*)>", rf'<svg\1 role="img" style="max-width:{width:.0f}pt">{title}', text, count=1)
    return Markup(text)
