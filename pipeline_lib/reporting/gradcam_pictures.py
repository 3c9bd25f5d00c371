"""Grad-CAM to look at: maps over the frames of one or two networks, as a picture (PNG, SVG) or a film.

The colours are viridis: perceptually uniform, readable without red and green, and from dark to light in grey print.
They lie over grey frames, because a frame's own colours would be taken for the map's. A network's maps are scaled
together, by their largest value: the unit of one network's maps has no meaning for another's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from pipeline_lib.evaluation.gradcam import GradCam
from pipeline_lib.flow.film import write_film
from pipeline_lib.reporting.standalone import STYLE, write_picture

COLOUR_MAP = "viridis"
OPACITY = 0.6
"""Of the colours over the grey frame; PySlowFast has 0.5, over the frame's own colours."""
MOMENTS = 6
PANEL_INCHES = 1.6


@dataclass(frozen=True)
class Row:
    """One line of pictures: its name, and the picture of a moment."""

    name: str
    cam: GradCam
    overlaid: bool

    def picture(self, second: float) -> np.ndarray:
        """The frame nearest to a time, uint8 (H, W, 3), with its map over it or without."""
        distance = np.abs(self.cam.seconds - second)
        clip, frame = np.unravel_index(int(np.nanargmin(distance)), distance.shape)
        return self.at(int(clip), int(frame))

    def at(self, clip: int, frame: int) -> np.ndarray:
        """A frame of a clip, uint8 (H, W, 3), with its map over it or without."""
        image: np.ndarray = self.cam.frames[clip, frame]
        return overlay(image, self.cam.shares[clip, frame]) if self.overlaid else image


def overlay(frame: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Colours of a map over a grey frame.

    Args:
        frame: uint8 (H, W, 3), RGB.
        share: float (H, W) in [0, 1].

    Returns:
        uint8 (H, W, 3), RGB.
    """
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    colours = mpl.colormaps[COLOUR_MAP](share)[..., :3].astype(np.float32) * 255
    blended: np.ndarray = np.rint(OPACITY * colours + (1 - OPACITY) * grey).astype(np.uint8)
    return blended


def rows_of(cams: Sequence[GradCam]) -> list[Row]:
    """The frames, then each network's maps. The frames are those of the first network."""
    named = [
        Row(f"{cam.experiment}, {cam.endpoint}\n{cam.class_name} ({100 * cam.probability:.0f} %)", cam, True)
        for cam in cams
    ]
    return [Row("frames", cams[0], False), *named]


def moments_of(cam: GradCam, count: int) -> list[tuple[int, int]]:
    """At most ``count`` frames (clip, frame), spread evenly over those that the clips hold."""
    present = np.argwhere(np.isfinite(cam.seconds))
    chosen = np.linspace(0, len(present) - 1, min(count, len(present))).round().astype(int)
    return [(int(clip), int(frame)) for clip, frame in present[chosen]]


def _bar(figure: Figure, axes: Sequence[Axes]) -> None:
    """The colours as they are over mid-grey, which is what the pictures show."""
    colours = mpl.colormaps[COLOUR_MAP](np.linspace(0, 1, 256))
    colours[:, :3] = OPACITY * colours[:, :3] + (1 - OPACITY) * 0.5
    shown = ScalarMappable(mpl.colors.Normalize(0, 1), mpl.colors.ListedColormap(colours))
    bar = figure.colorbar(shown, ax=list(axes), fraction=0.03, pad=0.015, aspect=24, ticks=[0, 0.5, 1])
    bar.set_label("speaks for the class\n(largest value = 1)")
    bar.outline.set_linewidth(0.5)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def figure_of(cams: Sequence[GradCam], count: int = MOMENTS) -> Figure:
    """A line of frames and one per network, a column per moment.

    Args:
        cams: of one video, one per network; moments are those of the first, and the others show their nearest frames.
        count: moments, at most.
    """
    rows, moments = rows_of(cams), moments_of(cams[0], count)
    height, width = cams[0].frames.shape[2:4]
    with mpl.rc_context(STYLE):
        size = (PANEL_INCHES * len(moments) * width / height + 2.9, (PANEL_INCHES + 0.06) * len(rows) + 0.25)
        gaps = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
        figure = Figure(figsize=size, layout=gaps)
        grid = figure.subplots(len(rows), len(moments), squeeze=False)
        for line, row in zip(grid, rows, strict=True):
            for axes, (clip, frame) in zip(line, moments, strict=True):
                second = float(cams[0].seconds[clip, frame])
                image = row.at(clip, frame) if row.cam is cams[0] else row.picture(second)
                axes.imshow(image, interpolation="nearest")
                _bare(axes)
                if row is rows[0]:
                    axes.set_title(f"{second:.2f} s", fontsize=10)
            line[0].set_ylabel(row.name, rotation=0, ha="right", va="center", labelpad=8)
        _bar(figure, [axes for line in grid[1:] for axes in line])
    return figure


def film_pictures(cams: Sequence[GradCam]) -> Iterator[np.ndarray]:
    """Every frame of the first network's clips beside the maps of each network, uint8 (H, W, 3) of one size."""
    rows = rows_of(cams)
    height, width = cams[0].frames.shape[2:4]
    with mpl.rc_context(STYLE):
        size = (2 * PANEL_INCHES * len(rows) * width / height + 0.9, 2 * PANEL_INCHES + 0.5)
        figure = Figure(figsize=size, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        grid = figure.subplots(1, len(rows), squeeze=False)[0]
        images = []
        for axes, row in zip(grid, rows, strict=True):
            images.append(axes.imshow(row.at(0, 0), interpolation="nearest"))
            axes.set_title(row.name if row.overlaid else "frame\n0.00 s", fontsize=10)
            _bare(axes)
        _bar(figure, [grid[-1]])
        for clip, frame in moments_of(cams[0], cams[0].seconds.size):
            second = float(cams[0].seconds[clip, frame])
            grid[0].title.set_text(f"frame\n{second:.2f} s")
            for image, row in zip(images, rows, strict=True):
                image.set_data(row.at(clip, frame) if row.cam is cams[0] else row.picture(second))
            canvas.draw()  # type: ignore[no-untyped-call]
            # The arrangement is found once, so that the panels do not move.
            figure.set_layout_engine("none")
            yield np.array(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]


def write_gradcam(path: Path, cams: Sequence[GradCam], count: int = MOMENTS) -> None:
    """Write the maps of one or more networks for one video.

    Args:
        path: ``.png`` or ``.svg`` for a picture, ``.mp4`` for a film of every frame at the video's speed.
        cams: one per network.
        count: moments of a picture, at most.
    """
    if path.suffix.lower() == ".mp4":
        steps = np.diff(cams[0].seconds, axis=1)
        steps = steps[steps > 0]
        write_film(path, film_pictures(cams), float(1 / np.median(steps)) if len(steps) else 1.0)
    else:
        write_picture(path, figure_of(cams, count))
