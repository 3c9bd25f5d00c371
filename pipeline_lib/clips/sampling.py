"""Which frames and pixels a clip holds, as pure functions of seed, epoch and sample."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.training import PastEnd, Sampling
from pipeline_lib.errors import UserError

# Purposes of the random streams: one seed gives each purpose independent numbers.
ORDER, AUGMENTATION, DROPOUT, INITIALISATION, COLOURS, VALIDATION, MOTION_VIEW = 1, 2, 3, 4, 5, 6, 7
RAND_AUGMENT, ERASING, MIXING = 8, 9, 10

# After so many rectangles that do not fit, the centre is taken, as in torchvision's RandomResizedCrop.
RECTANGLE_TRIES = 10

# Numbers of a sample's AUGMENTATION stream: start, short side, vertical, horizontal, flip, label, then area and aspect
# of each try. All are always drawn in this order, so that one setting does not change the numbers of another. Spacing
# by segments takes further numbers behind them, one for each frame (``num_uniform``).
NUM_UNIFORM = 6 + 2 * RECTANGLE_TRIES

PADDING = -1
"""The index of a frame that a clip does not have: the video has ended, and ``past_end`` is ``pad``."""


class StoredVideo(NamedTuple):
    """A video as its shard stores it: what decides which frames and pixels a clip of it holds.

    ``row`` is that of the index; ``height`` and ``width`` are pixels; ``frames_per_second`` is 0 if it is unknown.
    """

    row: int
    num_frames: int
    height: int
    width: int
    frames_per_second: float = 0.0
    id: str = ""


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


def stored_stride(stride: int, frames_per_second: float | None, video: StoredVideo) -> float:
    """Distance of two frames of a clip in stored frames; a fraction if the rates do not divide each other.

    Args:
        stride: as a recipe says it.
        frames_per_second: the rate at which the stride counts; None: it counts stored frames.
        video: with the rate of its stored frames.

    Raises:
        UserError: the stride counts seconds, and nobody knows the video's rate.
    """
    if frames_per_second is None:
        return float(stride)
    if not video.frames_per_second > 0:
        raise UserError(
            f"video {video.id or video.row}: nothing says how many frames a second it has, and the recipe's "
            f"`sampling.frames_per_second: {frames_per_second:g}` counts its stride in seconds. Set it to null, or "
            "give the frame format a `frames_per_second`."
        )
    return stride * video.frames_per_second / frames_per_second


def frame_offsets(num_frames: int, stride: float) -> np.ndarray:
    """Frames of a clip relative to its first one: round(k · stride), a half rounded up; int64 (num_frames,).

    So frame k lies k strides after the first, as the papers print it: 32 frames at a stride of 8/30 seconds span 208
    frames of a video of 25 a second. PySlowFast spreads its frames over stride · num_frames frames with a linspace
    (``get_start_end_idx`` and ``temporal_sampling`` in slowfast/datasets/decoder.py), which stretches the stride by
    (T·s − 1) / ((T − 1)·s), by 3 % for 32 × 8. That is not followed.
    """
    # Rates are floats, such as 30000 / 1001: what is a half but for their rounding counts as a half.
    offsets: np.ndarray = np.floor(np.arange(num_frames) * stride + (0.5 + 1e-6)).astype(np.int64)
    return offsets


def clip_span(num_frames: int, stride: float) -> int:
    """Number of frames of the video from a clip's first to its last."""
    return int(frame_offsets(num_frames, stride)[-1]) + 1


def frame_indices(
    start: int, num_frames: int, stride: float, video_frames: int, past_end: PastEnd = "loop"
) -> np.ndarray:
    """Frames of a clip: ``start``, ``start + stride``, …, rounded (``frame_offsets``).

    Args:
        start: first frame, 0 ≤ start < video_frames.
        num_frames: frames of the clip.
        stride: distance of two frames of the clip, in stored frames.
        video_frames: frames of the video.
        past_end: what the clip holds beyond the video's end.

    Returns:
        int64 (num_frames,), each in [0, video_frames), or ``PADDING`` beyond the end with ``pad``.
    """
    indices: np.ndarray = start + frame_offsets(num_frames, stride)
    if past_end == "loop":
        indices %= video_frames
    else:
        indices[indices >= video_frames] = video_frames - 1 if past_end == "clamp" else PADDING
    return indices


def whole_length(protocol: Protocol, num_frames: int, stride: float, video_frames: int) -> int:
    """Frames of the one clip that ``num_clips: all_frames`` takes of a video.

    Args:
        protocol: with its bounds.
        num_frames: of a training clip, which is the least without ``at_least``.
        stride: distance of two frames of the clip, in stored frames.
        video_frames: frames of the video.
    """
    offsets = frame_offsets(math.ceil(video_frames / stride) + 1, stride)
    length = max(protocol.at_least or num_frames, int((offsets < video_frames).sum()))
    return length if protocol.at_most is None else min(length, protocol.at_most)


def latest_start(num_frames: int, stride: float, video_frames: int) -> int:
    """The last start at which the clip does not run beyond the end; 0 for a video shorter than the clip."""
    return max(0, video_frames - clip_span(num_frames, stride))


def uniform_starts(num_clips: int, num_frames: int, stride: float, video_frames: int) -> list[int]:
    """Starts of ``num_clips`` uniformly spaced clips, the first at frame 0 and the last at the end.

    One clip lies in the middle. Spacing as in R(2+1)D (Tran et al. 2018, section 4.2: "10 clips uniformly sampled").
    """
    latest = latest_start(num_frames, stride, video_frames)
    if num_clips == 1:
        return [latest // 2]
    return [int(value) for value in np.round(np.linspace(0, latest, num_clips))]


def segment_frames(num_frames: int, video_frames: int, uniform: np.ndarray | None = None) -> tuple[int, ...]:
    """One frame of each of ``num_frames`` equal segments of the whole video, for ``spacing: segments``.

    As ``get_seq_frames`` of PySlowFast's Something-Something dataset (slowfast/datasets/ssv2.py): segment i runs from
    round(i · s) to round((i + 1) · s), both included; s = (video_frames − 1) / num_frames; a half rounds to even.

    Args:
        num_frames: frames of the clip.
        video_frames: frames of the video; if there are fewer than ``num_frames``, some occur again.
        uniform: ``num_frames`` numbers in [0, 1), which draw a frame of each segment; None takes the middle ones.

    Returns:
        Frames in [0, video_frames), never decreasing.
    """
    bounds = np.round(np.arange(num_frames + 1) * ((video_frames - 1) / num_frames)).astype(np.int64)
    first, last = bounds[:-1], bounds[1:]
    chosen = (first + last) // 2 if uniform is None else first + (uniform * (last - first + 1)).astype(np.int64)
    return tuple(chosen.tolist())


def num_uniform(sampling: Sampling) -> int:
    """How many numbers of its AUGMENTATION stream a sample takes; the first ``NUM_UNIFORM`` do not depend on it."""
    return NUM_UNIFORM + (sampling.num_frames if sampling.spacing == "segments" else 0)


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
    short_side: int | None
    """The frame's short side is resized to this before the crop, pixels; None with ``resize``."""
    stride: float = 1.0
    """Distance of two frames, in stored frames."""
    vertical: float = 0.5
    """Place of the crop: 0 is the top, 1 the bottom."""
    horizontal: float = 0.5
    """Place of the crop: 0 is the left, 1 the right."""
    rectangle: tuple[int, int, int, int] | None = None
    """Top, left, height and width in the stored frame, pixels: this part is resized to the crop, and ``short_side``,
    ``resize``, ``vertical`` and ``horizontal`` are not used."""
    flip: bool = False
    """Mirror the clip; u changes its sign with it."""
    reverse: bool = False
    """Play the clip backwards."""
    label: int = -1
    """Label, or −1 if none is wanted."""
    sample: int = -1
    """Global sample index in training, or the position in the list of requests in evaluation."""
    resize: tuple[int, int] | None = None
    """Height and width to which the frame is resized before the crop, pixels."""
    past_end: PastEnd = "loop"
    """What the clip holds beyond the end of the video."""
    frames: tuple[int, ...] | None = None
    """The clip's frames if they are not a stride apart; ``stride`` and ``past_end`` are then not used."""

    def indices(self, video_frames: int) -> np.ndarray:
        """Frames of the clip before it is played backwards, int64 (num_frames,); ``PADDING`` where there is none."""
        if self.frames is not None:
            return np.array(self.frames, dtype=np.int64)
        return frame_indices(self.start, self.num_frames, self.stride, video_frames, self.past_end)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a stored frame after the resize, pixels."""
        if self.resize is not None:
            return self.resize
        assert self.short_side is not None
        return resized_shape(height, width, self.short_side)


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
        uniform: ``NUM_UNIFORM`` numbers in [0, 1), or more; numbers 2 and 3 give the place, those from 6 on the tries.

    Returns:
        Top, left, height and width, pixels.
    """
    low, high = math.log(aspect[0]), math.log(aspect[1])
    for share, shape in uniform[6:NUM_UNIFORM].reshape(RECTANGLE_TRIES, 2).tolist():
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
    sampling: Sampling, uniform: np.ndarray, video: StoredVideo, sample: int, label: int, mirrored: bool
) -> ClipRequest:
    """A training clip at a random place in time and space.

    Args:
        sampling: which frames and pixels; without augmentation the crop is the centre's and nothing is mirrored.
        uniform: ``num_uniform`` numbers in [0, 1).
        video: of which the clip is.
        sample: the global sample index.
        label: the clip's label, −1 without one.
        mirrored: whether the clip may be mirrored.

    Raises:
        UserError: the stride counts seconds, and the video's rate is unknown.
    """
    plain = sampling.augmentation == "none"
    if sampling.spacing == "segments":
        frames = segment_frames(sampling.num_frames, video.num_frames, uniform[NUM_UNIFORM:])
        start, stride = frames[0], 1.0
    else:
        frames, stride = None, stored_stride(sampling.stride, sampling.frames_per_second, video)
        start = int(uniform[0] * (latest_start(sampling.num_frames, stride, video.num_frames) + 1))
    short_side = None
    if sampling.short_side is not None:
        low, high = sampling.short_side
        short_side = low + int(uniform[1] * (high - low + 1))
    rectangle = None
    if sampling.area is not None:
        rectangle = random_rectangle(video.height, video.width, sampling.area, sampling.aspect, uniform)
    return ClipRequest(
        video=video.row,
        start=start,
        num_frames=sampling.num_frames,
        stride=stride,
        crop=sampling.crop,
        short_side=short_side,
        resize=sampling.resize,
        vertical=0.5 if plain else float(uniform[2]),
        horizontal=0.5 if plain else float(uniform[3]),
        rectangle=rectangle,
        flip=mirrored and sampling.flip and not plain and bool(uniform[4] < 0.5),
        label=label,
        sample=sample,
        past_end=sampling.past_end,
        frames=frames,
    )
