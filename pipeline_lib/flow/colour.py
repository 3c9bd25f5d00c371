"""Flow as colours: direction is hue, length is saturation (the wheel of Baker et al. 2007, Middlebury's flowIO)."""

from functools import cache

import numpy as np

# Steps between neighbouring primary and secondary colours, as in Middlebury's colorcode.cpp.
_STEPS = (("red", 15), ("yellow", 6), ("green", 4), ("cyan", 11), ("blue", 13), ("magenta", 6))


@cache
def colour_wheel() -> np.ndarray:
    """The 55 colours of the wheel, float32 (55, 3) RGB in [0, 1]."""
    corners = {
        "red": (1, 0, 0),
        "yellow": (1, 1, 0),
        "green": (0, 1, 0),
        "cyan": (0, 1, 1),
        "blue": (0, 0, 1),
        "magenta": (1, 0, 1),
    }
    names = [name for name, _ in _STEPS]
    rows = []
    for index, (name, steps) in enumerate(_STEPS):
        start = np.array(corners[name], dtype=np.float32)
        end = np.array(corners[names[(index + 1) % len(names)]], dtype=np.float32)
        rows += [start + (end - start) * (step / steps) for step in range(steps)]
    return np.stack(rows).astype(np.float32)


def flow_to_rgb(flow: np.ndarray, maximum: float | None = None) -> np.ndarray:
    """Colour a flow field; no motion is white, motion beyond ``maximum`` is darkened.

    Args:
        flow: (2, H, W), pixels.
        maximum: the length that gets full saturation, pixels; None takes the field's longest vector.

    Returns:
        uint8 (H, W, 3) RGB.
    """
    u, v = flow[0].astype(np.float32), flow[1].astype(np.float32)
    length = np.hypot(u, v)
    scale = float(length.max()) if maximum is None else maximum
    radius = length / max(scale, 1e-6)
    wheel = colour_wheel()
    # colorcode.cpp: the angle of (−u, −v) in [−1, 1] spans the wheel.
    position = (np.arctan2(-v, -u) / np.pi + 1) / 2 * (len(wheel) - 1)
    lower = np.floor(position).astype(np.int64)
    fraction = (position - lower)[..., None]
    colours = (1 - fraction) * wheel[lower] + fraction * wheel[(lower + 1) % len(wheel)]
    inside = (radius <= 1)[..., None]
    colours = np.where(inside, 1 - radius[..., None] * (1 - colours), colours * 0.75)
    rgb: np.ndarray = np.floor(255 * np.clip(colours, 0, 1)).astype(np.uint8)
    return rgb
