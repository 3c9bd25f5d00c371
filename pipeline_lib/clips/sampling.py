"""Which frames and which pixels a clip holds: pure functions of (seed, epoch, sample)."""

from dataclasses import dataclass

import numpy as np

from pipeline_lib.configuration.training import Sampling

# Purposes of the counter-based streams: one seed gives independent numbers for each.
ORDER, AUGMENTATION, DROPOUT, INITIALISATION, COLOURS, VALIDATION, MOTION_VIEW = 1, 2, 3, 4, 5, 6, 7


def generator(seed: int, purpose: int, first: int, second: int = 0) -> np.random.Generator:
    """A random stream that is a function of its arguments alone.

    Philox is counter-based (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): the streams of
    two samples are independent and need no common state, so that a resumed run, or one on another number of
    processes, draws the same numbers for the same sample.

    Args:
        seed: the run's seed, ≥ 0.
        purpose: one of this module's constants.
        first: counter, such as the global sample index, ≥ 0.
        second: a further counter, ≥ 0.
    """
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, second, first]))


def epoch_order(seed: int, epoch: int, num_videos: int) -> np.ndarray:
    """The order of the videos in one epoch: a permutation, int64 (num_videos,)."""
    return generator(seed, ORDER, epoch).permutation(num_videos)


def clip_span(num_frames: int, stride: int) -> int:
    """Frames of the video that a clip covers, first to last."""
    return (num_frames - 1) * stride + 1


def frame_indices(start: int, num_frames: int, stride: int, total: int) -> np.ndarray:
    """Frames of a clip: ``start``, ``start + stride``, …; a video shorter than the clip loops.

    Looping is what I3D and S3D-G do with short videos (Carreira & Zisserman, "Quo Vadis", section 3.1: "looping the
    video as many times as necessary").

    Args:
        start: first frame, 0 ≤ start < total.
        num_frames: frames of the clip.
        stride: distance of two frames of the clip.
        total: frames of the video.

    Returns:
        int64 (num_frames,), each in [0, total).
    """
    indices: np.ndarray = (start + stride * np.arange(num_frames, dtype=np.int64)) % total
    return indices


def latest_start(num_frames: int, stride: int, total: int) -> int:
    """The last start at which the clip does not loop; 0 for a video shorter than the clip."""
    return max(0, total - clip_span(num_frames, stride))


def uniform_starts(num_clips: int, num_frames: int, stride: int, total: int) -> list[int]:
    """Starts of ``num_clips`` uniformly spaced clips, the first at frame 0 and the last at the end.

    One clip lies in the middle. Spacing as in R(2+1)D (Tran et al. 2018, section 4.2: "10 clips uniformly sampled").
    """
    latest = latest_start(num_frames, stride, total)
    if num_clips == 1:
        return [latest // 2]
    return [int(value) for value in np.round(np.linspace(0, latest, num_clips))]


@dataclass(frozen=True)
class ClipRequest:
    """One clip: which frames of which video, and which part of them. Evaluation builds these, so does training."""

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
    flip: bool = False
    """Mirror the clip; u changes its sign with it."""
    reverse: bool = False
    """Play the clip backwards."""
    label: int = -1
    """Class index, or −1 if none is asked for."""
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


def random_request(
    sampling: Sampling, uniform: np.ndarray, num_frames: int, video: int, sample: int, label: int, mirrored: bool
) -> ClipRequest:
    """A training clip at a random place in time and space.

    Args:
        sampling: which frames and pixels; without augmentation the crop is the centre's and nothing is mirrored.
        uniform: at least five numbers in [0, 1): start, short side, vertical and horizontal place of the crop, flip.
        num_frames: of the video.
        video: its row in the index.
        sample: the global sample index.
        label: the clip's class, -1 without one.
        mirrored: whether the clip may be mirrored.
    """
    low, high = sampling.short_side
    plain = sampling.augmentation == "none"
    return ClipRequest(
        video=video,
        start=int(uniform[0] * (latest_start(sampling.num_frames, sampling.stride, num_frames) + 1)),
        num_frames=sampling.num_frames,
        stride=sampling.stride,
        crop=sampling.crop,
        short_side=low + int(uniform[1] * (high - low + 1)),
        vertical=0.5 if plain else float(uniform[2]),
        horizontal=0.5 if plain else float(uniform[3]),
        flip=mirrored and not plain and bool(uniform[4] < 0.5),
        label=label,
        sample=sample,
    )
