"""The classes of the generated data sets: how an object moves, so that no single frame tells its class.

In every class an object's pose is a stationary process with the same distribution in a single frame. Its position is
uniform on a torus of the frame's size: what leaves the frame on one side enters it on the other. Its angle is uniform
on the circle, and the logarithm of its radius uniform on an interval. A uniform position that moves stays uniform. The
radius of an approaching object grows steadily and falls back within a few frames, which is uniform too if the phase is.
So a single frame has the same distribution in all classes, and only two frames together tell the class.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

CLASSES = {
    "motions": (
        "move_left",
        "move_right",
        "move_up",
        "move_down",
        "rotate_clockwise",
        "rotate_counterclockwise",
        "approach",
        "recede",
    ),
    "trajectories": (
        "diagonal_rising",
        "diagonal_falling",
        "orbit_clockwise",
        "orbit_counterclockwise",
        "bounce",
        "rock",
    ),
}
"""Class names per family, in the order of their labels."""

MINIMUM_RADIUS, MAXIMUM_RADIUS = 0.19, 0.36
"""Range of the object's radius, in units of the frame's short side."""
RETURN_FRAMES = 2.0
"""Number of frames in which an object that has grown (or shrunk) over the whole range returns."""


@dataclass(frozen=True)
class Pose:
    """Where an object is in each of T frames.

    ``x`` and ``y`` are pixels, not wrapped (so that differences are displacements); ``angle`` is in radians,
    clockwise as seen; ``radius`` in pixels.
    """

    x: Doubles
    y: Doubles
    angle: Doubles
    radius: Doubles


def pose(
    label: str, num_frames: int, height: int, width: int, speed_factor: float, generator: np.random.Generator
) -> Pose:
    """Draw the poses of one video, with the same random numbers in every class.

    Args:
        label: one of ``CLASSES``.
        num_frames: T.
        height: of the frame, pixels; positions wrap at it.
        width: of the frame, pixels.
        speed_factor: multiplies the drawn speed of every class.
        generator: source of place, phase and speed.

    Raises:
        ValueError: an unknown label.
    """
    short = min(height, width)
    time = np.arange(num_frames, dtype=np.float64)
    start_x, start_y = generator.uniform(0, width), generator.uniform(0, height)
    start_angle, phase = generator.uniform(0, 2 * np.pi), generator.uniform(0, 1)
    speed = speed_factor * generator.uniform(0.6, 1.4)
    drift = short * 0.0015 * generator.standard_normal(2)
    spin = 0.008 * generator.standard_normal()

    # Typical speeds at a short side of 64: 2 px per frame, 0.11 rad (1.9 px at a radius of 17 px), 7.6 % of growth
    # (1.3 px there). From objects that move half as fast a small RGB network learns nothing in the demo's time.
    step = speed * short * 0.0323
    x, y = start_x + drift[0] * time, start_y + drift[1] * time
    angle = start_angle + spin * time
    span = np.log(MAXIMUM_RADIUS / MINIMUM_RADIUS)
    level = np.full(num_frames, phase)
    turns = phase + time * speed / 14.0
    if label == "move_left":
        x = x - step * time
    elif label == "move_right":
        x = x + step * time
    elif label == "move_up":
        y = y - step * time
    elif label == "move_down":
        y = y + step * time
    elif label in ("rotate_clockwise", "rotate_counterclockwise"):
        angle = angle + (1 if label == "rotate_clockwise" else -1) * 0.11 * speed * time
    elif label in ("approach", "recede"):
        growth_frames = span / (0.0765 * speed)
        share = growth_frames / (growth_frames + RETURN_FRAMES)
        cycle = np.mod(phase + (1 if label == "approach" else -1) * time / (growth_frames + RETURN_FRAMES), 1.0)
        level = np.where(cycle < share, cycle / share, (1 - cycle) / (1 - share))
    elif label in ("diagonal_rising", "diagonal_falling"):
        x = x + step * time * np.sqrt(0.5)
        y = y + (-1 if label == "diagonal_rising" else 1) * step * time * np.sqrt(0.5)
    elif label in ("orbit_clockwise", "orbit_counterclockwise"):
        orbit = 2 * np.pi * turns * (1 if label == "orbit_clockwise" else -1)
        x, y = x + 0.12 * short * np.cos(orbit), y + 0.12 * short * np.sin(orbit)
    elif label == "bounce":
        hop = np.mod(turns, 1.0)
        y = y - 0.2 * short * 4 * hop * (1 - hop)
    elif label == "rock":
        angle = angle + 0.6 * np.sin(2 * np.pi * turns)
    else:
        raise ValueError(f"unknown class {label!r}")
    return Pose(x=x, y=y, angle=angle, radius=short * MINIMUM_RADIUS * np.exp(span * level))
