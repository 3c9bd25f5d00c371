"""From encoded frames to the pixels of a clip: decode, resize, crop."""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import cv2
import numpy as np
import simplejpeg

from pipeline_lib.clips.sampling import PADDING, ClipRequest, crop_corner
from pipeline_lib.errors import UserError
from pipeline_lib.media.motion_frames import padded, unstack_channels
from pipeline_lib.media.shards import Shard

Encoded: TypeAlias = Sequence[memoryview | None]
"""JPEGs in the order of a clip; None where the clip has no frame (``past_end: pad``)."""


def read_encoded(shard: Shard, first: int, video_frames: int, request: ClipRequest) -> list[memoryview | None]:
    """The clip's encoded frames in the order of the clip, from one contiguous read; None where there is no frame.

    Args:
        shard: the packed shard.
        first: the video's first frame within the shard.
        video_frames: frames of the video.
        request: which frames.
    """
    indices = request.indices(video_frames)
    wanted = np.unique(indices[indices != PADDING]).tolist()
    encoded = dict(zip(wanted, shard.read_frames([first + index for index in wanted]), strict=True))
    chosen = [None if index == PADDING else encoded[index] for index in indices.tolist()]
    return chosen[::-1] if request.reverse else chosen


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area average along what shrinks (no aliasing), then bilinear along what grows."""
    smaller = min(height, image.shape[0]), min(width, image.shape[1])
    if smaller != image.shape[:2]:
        image = cv2.resize(image, smaller[::-1], interpolation=cv2.INTER_AREA)
    if smaller != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return image


def _cut(image: np.ndarray, request: ClipRequest) -> np.ndarray:
    """The request's pixels, (crop, crop, …): the resized rectangle, or the crop of the resized frame."""
    if request.rectangle is not None:
        top, left, height, width = request.rectangle
        return _resize(image[top : top + height, left : left + width], request.crop, request.crop)
    image = _resize(image, *request.resized(image.shape[0], image.shape[1]))
    top, left = crop_corner(image.shape[0], image.shape[1], request)
    return image[top : top + request.crop, left : left + request.crop]


def _factors(height: int, width: int, request: ClipRequest) -> tuple[float, float]:
    """The factors by which ``_cut`` makes displacements along x and along y longer."""
    if request.rectangle is not None:
        _, _, height, width = request.rectangle
        return request.crop / width, request.crop / height
    new_height, new_width = request.resized(height, width)
    return new_width / width, new_height / height


def _decoded(encoded: Encoded, colour: str, out: np.ndarray, what: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yields positions of a clip and their frames, which the caller writes to ``out`` before the next one.

    A frame that occurs again (a looped video) is not decoded again but copied within ``out``. Where there is none, the
    bytes are 0.

    Raises:
        UserError: a frame is not a JPEG.
    """
    seen: dict[int, int] = {}
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(next(piece for piece in encoded if piece is not None))
        # One buffer for all frames, because new memory for each would cost page faults.
        scratch = np.empty((height, width, 3 if colour == "RGB" else 1), dtype=np.uint8)
        for position, piece in enumerate(encoded):
            if piece is None:
                out[position] = 0
                continue
            earlier = seen.setdefault(id(piece), position)
            if earlier == position:
                yield position, simplejpeg.decode_jpeg(piece, colorspace=colour, buffer=scratch)
            else:
                out[position] = out[earlier]
    except ValueError as error:
        raise UserError(
            f"{what}: a stored frame is not a valid JPEG ({error}). Delete the shard and run the same target again: "
            "Snakemake makes it again."
        ) from error


def decode_frames(encoded: Encoded, request: ClipRequest, out: np.ndarray, what: str) -> None:
    """Decode, resize and crop RGB frames.

    Args:
        encoded: the frames; an object that occurs twice (a looped video) is decoded once.
        request: resize and crop.
        out: uint8 (T, crop, crop, 3), written.
        what: named in errors.

    Raises:
        UserError: a frame is not a JPEG.
    """
    for position, image in _decoded(encoded, "RGB", out, what):
        out[position] = _cut(image, request)


def decode_motion(
    encoded: Encoded, height: int, width: int, request: ClipRequest, out: np.ndarray, what: str
) -> tuple[float, float]:
    """Decode, resize and crop motion frames (channels over each other in one grey JPEG).

    Args:
        encoded: the frames.
        height: of the frame that the motion belongs to, pixels.
        width: of that frame, pixels.
        request: resize and crop.
        out: uint8 (T, crop, crop, C), written; C = 2 is (u, v).
        what: named in errors.

    Returns:
        Factors of u and of v: a resize by s makes every displacement s times as long. They mean nothing for motion
        that is not flow.

    Raises:
        UserError: a frame is not a JPEG, or its height is not that of a motion frame.
    """
    expected = (out.shape[-1] * padded(height), width)
    for position, decoded in _decoded(encoded, "GRAY", out, what):
        image = decoded[..., 0]
        if image.shape != expected:
            raise UserError(f"{what}: a motion frame has the shape {image.shape}, {expected} was expected")
        for channel, plane in enumerate(unstack_channels(image, height)):
            out[position, ..., channel] = _cut(plane, request)
    return _factors(height, width, request)
