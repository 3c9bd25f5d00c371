"""Procedural textures, shapes and colours of the generated data sets."""

import colorsys

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

PATTERNS = {
    "motions": ("noise", "stripes", "checker", "spots"),
    "trajectories": ("cells", "rings", "bricks"),
}
"""Patterns per family: the second family shares no texture with the first."""

SHAPES = {
    "motions": ("ellipse", "triangle", "rectangle", "star"),
    "trajectories": ("hexagon", "cross", "flower"),
}
"""Outlines per family."""


def _smooth_noise(height: int, width: int, wavelength: float, generator: np.random.Generator) -> Floats:
    """Gaussian noise, low-passed to features of about ``wavelength`` pixels, in [0, 1]."""
    rough = generator.standard_normal((height, width)).astype(np.float32)
    noise: Floats = cv2.GaussianBlur(rough, (0, 0), max(wavelength / 4, 0.6), borderType=cv2.BORDER_REFLECT).astype(
        np.float32
    )
    noise -= noise.mean()
    scaled: Floats = np.clip(0.5 + noise / (4 * noise.std() + 1e-6), 0, 1).astype(np.float32)
    return scaled


def _ramp(values: npt.NDArray[np.floating]) -> Floats:
    """A soft step from 0 to 1 around zero, because optical flow needs antialiased edges."""
    ramp: Floats = (0.5 + 0.5 * np.tanh(2.5 * values)).astype(np.float32)
    return ramp


def pattern(kind: str, height: int, width: int, wavelength: float, generator: np.random.Generator) -> Floats:
    """Draw a grey pattern.

    Args:
        kind: one of ``PATTERNS``.
        height: pixels.
        width: pixels.
        wavelength: size of the pattern's features, pixels.
        generator: source of the orientation, the phase and the noise.

    Returns:
        float32 (height, width) in [0, 1].

    Raises:
        ValueError: an unknown kind.
    """
    angle, phase_u, phase_v = generator.uniform(0, 2 * np.pi, size=3)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    u = (np.cos(angle) * x + np.sin(angle) * y) * (2 * np.pi / wavelength) + phase_u
    v = (-np.sin(angle) * x + np.cos(angle) * y) * (2 * np.pi / wavelength) + phase_v
    noise = _smooth_noise(height, width, wavelength, generator)
    # Noise bends regular patterns, so that every spot looks different and the aperture problem leaves no motion
    # undetermined.
    u_bent, v_bent = u + 3 * (noise - 0.5), v - 3 * (noise - 0.5)
    if kind == "noise":
        grey = noise
    elif kind == "stripes":
        grey = _ramp(np.sin(u_bent))
    elif kind == "checker":
        grey = _ramp(1.5 * np.sin(u_bent) * np.sin(v_bent))
    elif kind == "spots":
        grey = _ramp(np.cos(u_bent) + np.cos(v_bent) - 0.7)
    elif kind == "rings":
        centre = generator.uniform(0.2, 0.8, size=2) * (height, width)
        grey = _ramp(np.sin(np.hypot(y - centre[0], x - centre[1]) * (2 * np.pi / wavelength) + 3 * noise))
    elif kind == "bricks":
        shifted = v_bent + np.pi * (np.floor(u_bent / (2 * np.pi)) % 2)
        grey = _ramp(1.5 * np.minimum(np.cos(u_bent), np.cos(shifted)) + 0.5)
    elif kind == "cells":
        num_cells = max(int(height * width / wavelength**2), 4)
        seeds = generator.uniform(0, 1, size=(num_cells, 2)) * (height, width)
        levels = generator.uniform(0, 1, size=num_cells).astype(np.float32)
        distance = (y[..., None] - seeds[:, 0]) ** 2 + (x[..., None] - seeds[:, 1]) ** 2
        grey = cv2.GaussianBlur(levels[distance.argmin(axis=-1)], (0, 0), 0.8)
    else:
        raise ValueError(f"unknown pattern {kind!r}")
    clipped: Floats = np.clip(grey + 0.3 * (noise - 0.5), 0, 1).astype(np.float32)
    return clipped


def colourise(grey: Floats, hue: float, saturation: float, values: tuple[float, float]) -> Floats:
    """Map a grey pattern to the shades of one hue.

    Args:
        grey: (H, W) in [0, 1].
        hue: in turns.
        saturation: in [0, 1].
        values: brightness (HSV value) at grey 0 and at grey 1.

    Returns:
        float32 (H, W, 3) RGB in [0, 1].
    """
    dark, bright = (np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value), dtype=np.float32) for value in values)
    mixed: Floats = dark + grey[..., None] * (bright - dark)
    return mixed


def outline(kind: str, num_points: int = 180) -> Doubles:
    """The closed outline of a shape in the unit disc, as (num_points, 2) pairs of x and y.

    Raises:
        ValueError: an unknown kind.
    """
    theta = np.linspace(0, 2 * np.pi, num_points, endpoint=False)
    cos, sin = np.cos(theta), np.sin(theta)
    radius: Doubles
    if kind == "ellipse":
        radius = 1 / np.hypot(cos, sin / 0.7)
    elif kind == "rectangle":
        radius = 1 / np.maximum(np.abs(cos) / 0.8, np.abs(sin) / 0.6)
    elif kind == "cross":
        reach_x, reach_y = 1 / (np.abs(cos) + 1e-9), 1 / (np.abs(sin) + 1e-9)
        arms = np.maximum(np.minimum(0.95 * reach_x, 0.4 * reach_y), np.minimum(0.4 * reach_x, 0.95 * reach_y))
        radius = np.minimum(arms, 1.0)
    elif kind in ("triangle", "hexagon"):
        corners = 3 if kind == "triangle" else 6
        sector = np.mod(theta, 2 * np.pi / corners) - np.pi / corners
        radius = np.cos(np.pi / corners) / np.cos(sector)
    elif kind == "star":
        radius = 0.75 + 0.25 * np.cos(5 * theta)
    elif kind == "flower":
        radius = 0.85 + 0.15 * np.cos(8 * theta)
    else:
        raise ValueError(f"unknown shape {kind!r}")
    points: Doubles = np.stack([radius * cos, radius * sin], axis=1)
    return points


def mask(kind: str, radius: int) -> Floats:
    """Opacity of a shape whose unit disc has ``radius`` pixels: float32 (2·radius + 4, 2·radius + 4) in [0, 1]."""
    side, factor = 2 * radius + 4, 8
    centre = side / 2
    points = (centre + radius * outline(kind)) * factor
    large = np.zeros((side * factor, side * factor), dtype=np.uint8)
    cv2.fillPoly(large, [np.round(points).astype(np.int32)], 255)
    small: Floats = (cv2.resize(large, (side, side), interpolation=cv2.INTER_AREA) / 255).astype(np.float32)
    return small
