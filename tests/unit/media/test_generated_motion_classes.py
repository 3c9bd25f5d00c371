"""The pose gives no class away: its marginals are the same for every class, in closed form."""

import numpy as np
import pytest
from scipy import stats

from pipeline_lib.generation.motion_classes import CLASSES, MAXIMUM_RADIUS, MINIMUM_RADIUS, pose

HEIGHT, WIDTH, NUM_FRAMES = 64, 80, 20
ALL = [label for labels in CLASSES.values() for label in labels]


@pytest.mark.parametrize("label", ALL)
def test_marginals_are_uniform_at_every_frame(label: str) -> None:
    generator = np.random.default_rng(5)
    drawn = [pose(label, NUM_FRAMES, HEIGHT, WIDTH, 1.0, generator) for _ in range(1500)]
    for frame in (0, 7, 10, 19):
        radius = np.array([one.radius[frame] for one in drawn]) / HEIGHT
        uniforms = {
            "x": np.array([one.x[frame] for one in drawn]) % WIDTH / WIDTH,
            "y": np.array([one.y[frame] for one in drawn]) % HEIGHT / HEIGHT,
            "angle": np.array([one.angle[frame] for one in drawn]) % (2 * np.pi) / (2 * np.pi),
            "radius": np.log(radius / MINIMUM_RADIUS) / np.log(MAXIMUM_RADIUS / MINIMUM_RADIUS),
        }
        for name, values in uniforms.items():
            # 14 classes × 4 frames × 4 marginals: 1e-4 leaves about 2 % of false alarms over all seeds.
            assert stats.kstest(values, "uniform").pvalue > 1e-4, (label, frame, name)
        assert abs(np.corrcoef(list(uniforms.values()))[np.triu_indices(4, 1)]).max() < 0.12, label


def _typical(label: str) -> tuple[float, float, float, float]:
    """Median displacement, turn and growth per frame over many clips."""
    generator = np.random.default_rng(3)
    drawn = [pose(label, NUM_FRAMES, HEIGHT, WIDTH, 1.0, generator) for _ in range(200)]
    series = [(np.diff(one.x), np.diff(one.y), np.diff(one.angle), np.diff(np.log(one.radius))) for one in drawn]
    u, v, turn, growth = (float(np.median(np.concatenate(parts))) for parts in zip(*series, strict=True))
    return u, v, turn, growth


def test_each_class_moves_as_its_name_says() -> None:
    typical = {label: _typical(label) for label in ALL}
    # Image coordinates: u to the right, v down; a growing angle is clockwise as seen.
    assert typical["move_left"][0] < -0.8 and typical["move_right"][0] > 0.8
    assert typical["move_up"][1] < -0.8 and typical["move_down"][1] > 0.8
    assert typical["rotate_clockwise"][2] > 0.05 and typical["rotate_counterclockwise"][2] < -0.05
    assert typical["approach"][3] > 0.03 and typical["recede"][3] < -0.03
    assert typical["diagonal_rising"][0] > 0.5 and typical["diagonal_rising"][1] < -0.5
    assert typical["diagonal_falling"][0] > 0.5 and typical["diagonal_falling"][1] > 0.5
    for label in ("orbit_clockwise", "orbit_counterclockwise"):
        generator = np.random.default_rng(4)
        one = pose(label, NUM_FRAMES, HEIGHT, WIDTH, 1.0, generator)
        u, v = np.diff(one.x), np.diff(one.y)
        turning = u[:-1] * v[1:] - v[:-1] * u[1:]
        assert (np.sign(turning) == (1 if label == "orbit_clockwise" else -1)).mean() > 0.9
    generator = np.random.default_rng(4)
    assert np.ptp(pose("bounce", NUM_FRAMES, HEIGHT, WIDTH, 1.0, generator).y) > 8
    rocking = np.diff(pose("rock", NUM_FRAMES, HEIGHT, WIDTH, 1.0, generator).angle)
    assert rocking.min() < -0.05 and rocking.max() > 0.05
    with pytest.raises(ValueError, match="unknown class"):
        pose("somersault", NUM_FRAMES, HEIGHT, WIDTH, 1.0, generator)
