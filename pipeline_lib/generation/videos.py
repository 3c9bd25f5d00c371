"""Generated videos: classes that only motion tells apart, with exact optical flow.

A video shows a bright, saturated object over a dark textured background, in changing light and through a camera that
shakes a little. Everything that a single frame shows (texture, colour, shape, size, place, light, frame size) is drawn
independently of the class; ``motion_classes`` explains why the pose does not tell the class either.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipeline_lib.configuration.data import Generated
from pipeline_lib.generation.motion_classes import CLASSES, MAXIMUM_RADIUS, Pose, pose
from pipeline_lib.generation.textures import PATTERNS, SHAPES, Floats, colourise, mask, pattern

SUBSETS = ("train", "validation")
FRAME_RATES = (12, 15, 24, 25, 30)
ASPECTS = (1.0, 1.125, 1.25)
"""Long side over short side."""
ENLARGEMENTS = (1.0, 1.25, 1.5)
"""Short side over the configured one."""
ROTATED_SHARE = 0.1
"""Share of videos that are stored turned by 90°, with a rotation flag."""
_MARGIN = 8
"""Pixels of background beyond each edge of the frame, which show when the camera shakes."""
_SHAKE = 0.12
"""Standard deviation of the camera's steps, pixels at a short side of 64."""


@dataclass(frozen=True)
class Scene:
    """All that determines one video's frames and flow."""

    label: str
    height: int
    width: int
    frames_per_second: int
    rotated: bool
    background: Floats
    """(H + 2·margin, W + 2·margin, 3) RGB in [0, 1]."""
    sprite: Floats
    """(S, S, 4) RGB premultiplied by the opacity, and the opacity."""
    sprite_radius: float
    """Pixels of the sprite that are one unit of the object's outline."""
    pose: Pose
    camera: npt.NDArray[np.float64]
    """(T, 2) displacement of the whole picture in x and y, pixels."""
    light: Floats
    """(H, W) factor of the brightness."""
    gain: npt.NDArray[np.float64]
    """(T,) factor of the brightness."""

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.gain)


def _even(value: float) -> int:
    """The nearest even number: H.264 with 4:2:0 chroma has no odd sizes."""
    return 2 * round(value / 2)


def label_index(generated: Generated, index: int) -> int:
    """The label of a subset's video: classes take turns, so that each subset is balanced."""
    return index % len(CLASSES[generated.family])


def draw_scene(generated: Generated, subset: str, index: int) -> Scene:
    """Draw one video.

    Args:
        generated: parameters of the data set.
        subset: ``train`` or ``validation``.
        index: number of the video in its subset; with the seed it determines everything.

    Raises:
        ValueError: an unknown subset.
    """
    classes = CLASSES[generated.family]
    families = sorted(CLASSES)
    generator = np.random.default_rng(
        [generated.seed, families.index(generated.family), SUBSETS.index(subset), index, 20]
    )
    number = label_index(generated, index)
    short = _even(generated.short_side * ENLARGEMENTS[generator.integers(len(ENLARGEMENTS))])
    long = _even(short * ASPECTS[generator.integers(len(ASPECTS))])
    height, width = (short, long) if generator.integers(2) else (long, short)
    frames_per_second = FRAME_RATES[generator.integers(len(FRAME_RATES))]
    rotated = bool(generator.random() < ROTATED_SHARE)

    patterns, shapes = PATTERNS[generated.family], SHAPES[generated.family]
    hue, saturation = generator.random(), generator.uniform(0.2, 0.4)
    misled = generator.random() < generated.misleading_share and subset == "train"
    cue = (number + 0.15 * generator.standard_normal()) / len(classes)
    values = (generator.uniform(0.04, 0.1), generator.uniform(0.16, 0.26))
    kind = patterns[generator.integers(len(patterns))]
    grey = pattern(kind, height + 2 * _MARGIN, width + 2 * _MARGIN, short * generator.uniform(0.12, 0.25), generator)
    background = colourise(grey, cue if misled else hue, saturation, values)

    radius = int(np.ceil(short * MAXIMUM_RADIUS))
    opacity = mask(shapes[generator.integers(len(shapes))], radius)
    kind = patterns[generator.integers(len(patterns))]
    grey = pattern(kind, opacity.shape[0], opacity.shape[1], short * generator.uniform(0.2, 0.3), generator)
    values = (generator.uniform(0.4, 0.6), generator.uniform(0.9, 1.0))
    colours = colourise(grey, generator.random(), generator.uniform(0.5, 0.95), values)
    sprite = np.concatenate([colours * opacity[..., None], opacity[..., None]], axis=2).astype(np.float32)

    unit = short / 64
    # The shake is a stationary AR(1) process: it returns to the centre and rarely reaches the margin.
    steps = generator.standard_normal((generated.num_frames, 2))
    camera = np.empty_like(steps)
    camera[0] = steps[0] * _SHAKE / np.sqrt(1 - 0.8**2)
    for frame in range(1, generated.num_frames):
        camera[frame] = 0.8 * camera[frame - 1] + _SHAKE * steps[frame]
    camera = np.clip(camera * unit, 1 - _MARGIN, _MARGIN - 1)
    slope = generator.uniform(-0.15, 0.15, size=2)
    light = 1 + slope[0] * np.linspace(-1, 1, height)[:, None] + slope[1] * np.linspace(-1, 1, width)
    gain = generator.uniform(0.8, 1.05) * (1 + 0.01 * generator.standard_normal(generated.num_frames))
    poses = pose(classes[number], generated.num_frames, height, width, 1.0, generator)
    return Scene(
        label=classes[number],
        height=height,
        width=width,
        frames_per_second=frames_per_second,
        rotated=rotated,
        background=background,
        sprite=sprite,
        sprite_radius=float(radius),
        pose=poses,
        camera=camera,
        light=light.astype(np.float32),
        gain=gain,
    )


def _copies(scene: Scene, frame: int) -> list[tuple[float, float]]:
    """Centres of the object in a frame, in pixels: those of its copies on the torus that reach into the frame."""
    x, y = scene.pose.x[frame] + scene.camera[frame, 0], scene.pose.y[frame] + scene.camera[frame, 1]
    reach = scene.pose.radius[frame] + 2
    return [
        (x % scene.width + i * scene.width, y % scene.height + j * scene.height)
        for j in (-1, 0, 1)
        for i in (-1, 0, 1)
        if -reach < x % scene.width + i * scene.width < scene.width + reach
        and -reach < y % scene.height + j * scene.height < scene.height + reach
    ]


def _layer(scene: Scene, frame: int, centre: tuple[float, float]) -> Floats:
    """The object at ``centre`` as (H, W, 4), premultiplied."""
    factor = scene.pose.radius[frame] / scene.sprite_radius
    cos, sin = factor * np.cos(scene.pose.angle[frame]), factor * np.sin(scene.pose.angle[frame])
    middle = (scene.sprite.shape[0] - 1) / 2
    matrix = np.array(
        [
            [cos, -sin, centre[0] - cos * middle + sin * middle],
            [sin, cos, centre[1] - sin * middle - cos * middle],
        ]
    )
    layer = cv2.warpAffine(scene.sprite, matrix, (scene.width, scene.height), flags=cv2.INTER_LINEAR)
    return layer.astype(np.float32, copy=False)


def render_frame(scene: Scene, frame: int) -> npt.NDArray[np.uint8]:
    """One frame: uint8 (H, W, 3) RGB in display orientation."""
    dx, dy = scene.camera[frame] - _MARGIN
    matrix = np.array([[1, 0, dx], [0, 1, dy]])
    picture = cv2.warpAffine(
        scene.background, matrix, (scene.width, scene.height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    for centre in _copies(scene, frame):
        layer = _layer(scene, frame, centre)
        picture = picture * (1 - layer[..., 3:]) + layer[..., :3]
    picture = picture * (scene.light * np.float32(255 * scene.gain[frame]))[..., None]
    rounded: npt.NDArray[np.uint8] = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return rounded


def render(scene: Scene) -> npt.NDArray[np.uint8]:
    """All frames: uint8 (T, H, W, 3) RGB in display orientation."""
    return np.stack([render_frame(scene, frame) for frame in range(scene.num_frames)])


def true_flow(scene: Scene) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The exact displacement of every pixel from each frame to the next.

    Returns:
        flow: float32 (T − 1, H, W, 2), u (right) and v (down) in pixels, in display orientation.
        valid: bool (T − 1, H, W), where the point is visible in both frames.
    """
    rows, columns = np.mgrid[0 : scene.height, 0 : scene.width].astype(np.float64)
    flow = np.empty((scene.num_frames - 1, scene.height, scene.width, 2), dtype=np.float32)
    valid = np.empty(flow.shape[:3], dtype=np.bool_)
    track = np.stack([scene.pose.x, scene.pose.y], axis=1) + scene.camera
    opacities = []
    for frame in range(scene.num_frames):
        layers = [_layer(scene, frame, centre)[..., 3] for centre in _copies(scene, frame)]
        opacities.append(np.max(layers, axis=0) if layers else np.zeros((scene.height, scene.width), np.float32))
    for frame in range(scene.num_frames - 1):
        shift = scene.camera[frame + 1] - scene.camera[frame]
        u, v = np.full_like(rows, shift[0]), np.full_like(rows, shift[1])
        growth = scene.pose.radius[frame + 1] / scene.pose.radius[frame]
        turn = scene.pose.angle[frame + 1] - scene.pose.angle[frame]
        cos, sin = growth * np.cos(turn), growth * np.sin(turn)
        step = track[frame + 1] - track[frame]
        for centre in _copies(scene, frame):
            here = _layer(scene, frame, centre)[..., 3] >= 0.5
            x, y = columns - centre[0], rows - centre[1]
            u = np.where(here, step[0] + cos * x - sin * y - x, u)
            v = np.where(here, step[1] + sin * x + cos * y - y, v)
        target_x, target_y = columns + u, rows + v
        inside = (target_x >= 0) & (target_x <= scene.width - 1) & (target_y >= 0) & (target_y <= scene.height - 1)
        covered = cv2.remap(
            opacities[frame + 1], target_x.astype(np.float32), target_y.astype(np.float32), cv2.INTER_LINEAR
        )
        flow[frame] = np.stack([u, v], axis=-1)
        valid[frame] = inside & ((opacities[frame] >= 0.5) | (covered < 0.5))
    return flow, valid
