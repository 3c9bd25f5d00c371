"""Figures as files of their own: on white, with their text as text, and equal bytes for equal data."""

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from pipeline_lib.artefacts.atomic import write_bytes

STYLE: Any = {"font.size": 10, "font.family": "sans-serif", "svg.fonttype": "none", "svg.hashsalt": "pipeline"}
"""Text stays text in SVG; the salt takes the place of random ids."""
DOTS_PER_INCH = 150


def write_picture(path: Path, figure: Figure) -> None:
    """Write a figure as PNG or SVG, by the path's ending, atomically and without a date."""
    buffer = io.BytesIO()
    kind = path.suffix.lower().removeprefix(".")
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context(STYLE):
        # Tight, so that a long name of an experiment or a class is not cut off.
        figure.savefig(buffer, format=kind, dpi=DOTS_PER_INCH, metadata=metadata, bbox_inches="tight", pad_inches=0.05)
    write_bytes(path, buffer.getvalue())
