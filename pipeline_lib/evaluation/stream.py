"""Predictions of a video that is still coming: a window slides over its frames, and only the window is kept."""

import dataclasses
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import simplejpeg

from pipeline_lib.clips.sampling import StoredVideo, clip_span, stored_stride
from pipeline_lib.configuration.data import FrameFormat
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.specification import TrainingSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.prediction import DEFAULT_RATE, Prediction, clip_probabilities, indexed_frames
from pipeline_lib.evaluation.trained import TrainedNetwork
from pipeline_lib.media.decoder import DecodingError, DecodingOptions, decode_video

# A camera may pause for long, and has no end. poll() takes at most 2³¹ ms.
_STALL_SECONDS, _TOTAL_SECONDS = 86_400.0, 1e9


@dataclass(frozen=True)
class StreamedFrame:
    """One frame as shards store it.

    Attributes:
        jpeg: the picture.
        height: pixels.
        width: pixels.
        number: of the frame in the stream as it came, from 0.
    """

    jpeg: bytes
    height: int
    width: int
    number: int


def stored_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width of a stored frame: a larger one is scaled down to its short side, as the frames stage does."""
    if min(height, width) <= short_side:
        return height, width
    if width > height:
        return short_side, round(width * short_side / height)
    return round(height * short_side / width), short_side


def stored_frames(
    frames: Iterable[np.ndarray], frame_format: FrameFormat, frames_per_second: float
) -> Iterator[StreamedFrame]:
    """Frames of an array's kind as the frames stage would store them: scaled, encoded, at the format's rate.

    Scaling is ffmpeg's (libswscale, bicubic), in this process: a picture differs from the frames stage's by rounding.

    Args:
        frames: uint8 (H, W, 3), RGB, all of one size.
        frame_format: of the network's training.
        frames_per_second: of the frames. A format with a rate of its own takes each frame as often as that rate needs.

    Raises:
        UserError: a frame is no picture, or has another size than the first.
    """
    rate = frame_format.frames_per_second
    factor = 1.0 if rate is None else rate / frames_per_second
    shape: tuple[int, ...] | None = None
    for number, frame in enumerate(frames):
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3:
            found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise UserError(f"a frame is uint8 (H, W, 3); frame {number} is {found}.")
        shape = shape or frame.shape
        if frame.shape != shape or 0 in shape:
            raise UserError(
                f"all frames of a stream have one size; frame {number} is {frame.shape}, the first {shape}."
            )
        copies = math.floor((number + 1) * factor + 0.5) - math.floor(number * factor + 0.5)
        if copies == 0:
            continue
        height, width = stored_size(frame.shape[0], frame.shape[1], frame_format.short_side)
        picture = np.ascontiguousarray(frame)
        if (height, width) != frame.shape[:2]:
            video_frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            scaled = video_frame.reformat(width, height, "rgb24", interpolation="BICUBIC")
            picture = np.ascontiguousarray(scaled.to_ndarray())
        jpeg = simplejpeg.encode_jpeg(picture, frame_format.jpeg_quality, colorspace="RGB", colorsubsampling="420")
        for _ in range(copies):
            yield StreamedFrame(jpeg, height, width, number)


@contextmanager
def standard_input(frame_format: FrameFormat) -> Iterator[tuple[Iterator[StreamedFrame], float]]:
    """The frames of a video that comes through this process's standard input, as the frames stage stores them.

    ffmpeg reads it: any container that can be read without going back (Matroska, NUT, MPEG-TS, YUV4MPEG, FLV,
    fragmented MP4), or a file behind ``<``.

    Args:
        frame_format: of the network's training.

    Yields:
        The frames, and how many a second they are.

    Raises:
        UserError: ffmpeg finds no video in it.
    """
    path = Path(f"/proc/{os.getpid()}/fd/0")
    options = DecodingOptions(
        frame_format.short_side,
        frame_format.frames_per_second,
        keep_damaged=True,
        stall_seconds=_STALL_SECONDS,
        total_seconds=_TOTAL_SECONDS,
    )
    try:
        with decode_video(path, options) as raw:

            def encoded() -> Iterator[StreamedFrame]:
                for number, planes in enumerate(raw):
                    jpeg = simplejpeg.encode_jpeg_yuv_planes(*planes, frame_format.jpeg_quality)
                    yield StreamedFrame(jpeg, raw.height, raw.width, number)

            yield encoded(), raw.frames_per_second or DEFAULT_RATE
    except DecodingError as error:
        raise UserError(
            f"standard input: {error}. It takes a video in a container that can be read without going back, for "
            "example: ffmpeg -i VIDEO -f nut - | python -m pipeline_lib predict - …"
        ) from None


def window_length(specification: TrainingSpecification, stored_rate: float, wanted: int | None = None) -> int:
    """How many stored frames a prediction sees: as many as a clip of the training spans, or ``wanted``.

    Raises:
        UserError: the training took frames of the whole video, so that only the user can say how long that is.
    """
    sampling = specification.recipe.sampling
    if wanted is not None:
        if wanted < 1:
            raise UserError(f"window is {wanted}; a window has at least 1 frame.")
        return wanted
    if sampling.spacing == "segments":
        raise UserError(
            f"{specification.experiment} was trained on frames from all over a video (`spacing: segments`), and a "
            "stream has no end: say how many frames a prediction shall see, window=…, on the command line --window."
        )
    stride = stored_stride(sampling.stride, sampling.frames_per_second, StoredVideo(0, 1, 1, 1, stored_rate))
    return clip_span(sampling.num_frames, stride)


def predict_stream(
    trained: TrainedNetwork,
    frame_format: FrameFormat,
    frames: Iterable[StreamedFrame],
    stored_rate: float,
    window: int,
    every: int,
    num_clips: int = 1,
    num_threads: int = 1,
) -> Iterator[Prediction]:
    """Predictions of a window that slides over frames: one when it is full, then one each ``every`` frames.

    If the stream ends before, there is one prediction of what has come. Only the window's encoded frames are kept.

    Args:
        trained: the network.
        frame_format: of its training.
        frames: as they come.
        stored_rate: of ``frames``, a second.
        window: stored frames that a prediction sees.
        every: frames of the stream, as it came, between two predictions.
        num_clips: uniformly spaced clips of the window.
        num_threads: for flow.
    """
    kept: deque[StreamedFrame] = deque(maxlen=window)
    protocol = Protocol(num_clips=num_clips)
    last: int | None = None

    def predicted() -> Prediction:
        first = kept[0]
        jpegs = [frame.jpeg for frame in kept]
        with indexed_frames(
            jpegs, first.height, first.width, stored_rate, trained.specification, frame_format, num_threads
        ) as index:
            probabilities = clip_probabilities(trained, index, protocol)
        found = Prediction(trained.classes, probabilities.mean(axis=0), len(probabilities), len(kept))
        return dataclasses.replace(found, last_frame=kept[-1].number)

    for frame in frames:
        kept.append(frame)
        if len(kept) == window and (last is None or frame.number - last >= every):
            last = frame.number
            yield predicted()
    if last is None and kept:
        yield predicted()
