"""Which frames and pixels a clip holds, as pure functions of seed, epoch and sample."""

import math
from dataclasses import dataclass

import numpy as np

from pipeline_lib.configuration.training import Sampling

# Purposes of the random streams: one seed gives each purpose independent numbers.
ORDER, AUGMENTATION, DROPOUT, INITIALISATION, COLOURS, VALIDATION, MOTION_VIEW = 1, 2, 3, 4, 5, 6, 7

# After so many rectangles that do not fit, the centre is taken, as in torchvision's RandomResizedCrop.
RECTANGLE_TRIES = 10

# Numbers of a sample's AUGMENTATION stream: start, short side, vertical, horizontal, flip, label, then area and aspect
# of each try. All are always drawn in this order, so that one setting does not change the numbers of another.
NUM_UNIFORM = 6 + 2 * RECTANGLE_TRIES


def generator(seed: int, purpose: int, first: int, second: int = 0) -> np.random.Generator:
    """A random stream that is a function of its arguments alone.

    Philox is counter-based (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). The streams of two
    samples are independent and share no state. So a resumed run, or a run on another number of processes, draws the
    same numbers for the same sample.

    Args:
        seed: the run's seed, ≥ 0.
        purpose: one of this module's constants.
        first: a counter, such as the global sample index, ≥ 0.
        second: another counter, ≥ 0.
    """
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, second, first]))


def epoch_order(seed: int, epoch: int, num_videos: int) -> np.ndarray:
    """The order of the videos in one epoch: a permutation, int64 (num_videos,)."""
    return generator(seed, ORDER, epoch).permutation(num_videos)


def clip_span(num_frames: int, stride: int) -> int:
    """Number of frames of the video from a clip's first to its last."""
    return (num_frames - 1) * stride + 1


def frame_indices(start: int, num_frames: int, stride: int, video_frames: int) -> np.ndarray:
    """Frames of a clip: ``start``, ``start + stride``, …; a video shorter than the clip loops.

    Looping is what I3D and S3D-G do with short videos (Carreira & Zisserman, "Quo Vadis", section 3.1: "looping the
    video as many times as necessary").

    Args:
        start: first frame, 0 ≤ start < video_frames.
        num_frames: frames of the clip.
        stride: distance of two frames of the clip.
        video_frames: frames of the video.

    Returns:
        int64 (num_frames,), each in [0, video_frames).
    """
    indices: np.ndarray = (start + stride * np.arange(num_frames, dtype=np.int64)) % video_frames
    return indices


def latest_start(num_frames: int, stride: int, video_frames: int) -> int:
    """The last start at which the clip does not loop; 0 for a video shorter than the clip."""
    return max(0, video_frames - clip_span(num_frames, stride))


def uniform_starts(num_clips: int, num_frames: int, stride: int, video_frames: int) -> list[int]:
    """Starts of ``num_clips`` uniformly spaced clips, the first at frame 0 and the last at the end.

    One clip lies in the middle. Spacing as in R(2+1)D (Tran et al. 2018, section 4.2: "10 clips uniformly sampled").
    """
    latest = latest_start(num_frames, stride, video_frames)
    if num_clips == 1:
        return [latest // 2]
    return [int(value) for value in np.round(np.linspace(0, latest, num_clips))]


@dataclass(frozen=True)
class ClipRequest:
    """One clip: which frames of which video, and which part of them. Training and evaluation read clips by these."""

    video: int
    """Row of the index."""
    start: int
    """First frame."""
    num_frames: int
    """Frames of the clip."""
    crop: int
    """Side of the square crop, pixels, after the resize."""
    short_side: int
    """The frame's short side is resized to this before the crop, pixels."""
    stride: int = 1
    """Distance of two frames."""
    vertical: float = 0.5
    """Place of the crop: 0 is the top, 1 the bottom."""
    horizontal: float = 0.5
    """Place of the crop: 0 is the left, 1 the right."""
    rectangle: tuple[int, int, int, int] | None = None
    """Top, left, height and width in the stored frame, pixels: this part is resized to the crop, and ``short_side``,
    ``vertical`` and ``horizontal`` are not used."""
    flip: bool = False
    """Mirror the clip; u changes its sign with it."""
    reverse: bool = False
    """Play the clip backwards."""
    label: int = -1
    """Label, or −1 if none is wanted."""
    sample: int = -1
    """Global sample index in training, or the position in the list of requests in evaluation."""


def resized_shape(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width after resizing the short side to ``short_side``, aspect kept, rounded to whole pixels."""
    if height <= width:
        return short_side, max(short_side, round(width * short_side / height))
    return max(short_side, round(height * short_side / width)), short_side


def crop_corner(height: int, width: int, request: ClipRequest) -> tuple[int, int]:
    """Top and left of the request's crop in a frame of the given resized shape, pixels."""
    top = round(request.vertical * (height - request.crop))
    left = round(request.horizontal * (width - request.crop))
    return top, left


def random_rectangle(
    height: int, width: int, area: tuple[float, float], aspect: tuple[float, float], uniform: np.ndarray
) -> tuple[int, int, int, int]:
    """Part of a frame with a random share of its area and a random aspect.

    This is Inception's augmentation (Szegedy et al., "Going deeper with convolutions", section 6) as torchvision's
    RandomResizedCrop and MaCLR draw it (``get_crop_params`` in MaCLR's slowfast/datasets/transform.py). The share is
    uniform, and so is the logarithm of the aspect. If none of ten tries fits into the frame, the result is the largest
    central rectangle whose aspect is in the range.

    Args:
        height: of the frame, pixels.
        width: of the frame, pixels.
        area: range of the share of the frame's area, in (0, 1].
        aspect: range of width over height, > 0.
        uniform: ``NUM_UNIFORM`` numbers in [0, 1); numbers 2 and 3 give the place, those from 6 on the tries.

    Returns:
        Top, left, height and width, pixels.
    """
    low, high = math.log(aspect[0]), math.log(aspect[1])
    for share, shape in uniform[6:].reshape(RECTANGLE_TRIES, 2).tolist():
        pixels = height * width * (area[0] + (area[1] - area[0]) * share)
        ratio = math.exp(low + (high - low) * shape)
        new_height, new_width = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
        if 0 < new_height <= height and 0 < new_width <= width:
            top = int(uniform[2] * (height - new_height + 1))
            left = int(uniform[3] * (width - new_width + 1))
            return top, left, new_height, new_width
    new_height = min(height, max(1, round(width / aspect[0])))
    new_width = min(width, max(1, round(height * aspect[1])))
    return (height - new_height) // 2, (width - new_width) // 2, new_height, new_width


def random_request(
    sampling: Sampling,
    uniform: np.ndarray,
    video_frames: int,
    shape: tuple[int, int],
    video: int,
    sample: int,
    label: int,
    mirrored: bool,
) -> ClipRequest:
    """A training clip at a random place in time and space.

    Args:
        sampling: which frames and pixels; without augmentation the crop is the centre's and nothing is mirrored.
        uniform: ``NUM_UNIFORM`` numbers in [0, 1).
        video_frames: frames of the video.
        shape: height and width of its stored frames, pixels.
        video: its row in the index.
        sample: the global sample index.
        label: the clip's label, −1 without one.
        mirrored: whether the clip may be mirrored.
    """
    low, high = sampling.short_side
    plain = sampling.augmentation == "none"
    return ClipRequest(
        video=video,
        start=int(uniform[0] * (latest_start(sampling.num_frames, sampling.stride, video_frames) + 1)),
        num_frames=sampling.num_frames,
        stride=sampling.stride,
        crop=sampling.crop,
        short_side=low + int(uniform[1] * (high - low + 1)),
        vertical=0.5 if plain else float(uniform[2]),
        horizontal=0.5 if plain else float(uniform[3]),
        rectangle=None if sampling.area is None else random_rectangle(*shape, sampling.area, sampling.aspect, uniform),
        flip=mirrored and not plain and bool(uniform[4] < 0.5),
        label=label,
        sample=sample,
    )
