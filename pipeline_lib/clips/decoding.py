"""From encoded frames to the pixels of a clip: decode, resize, crop."""

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
import simplejpeg

from pipeline_lib.clips.sampling import ClipRequest, crop_corner, frame_indices, resized_shape
from pipeline_lib.errors import UserError
from pipeline_lib.media.shards import Shard


def padded_half(height: int) -> int:
    """Rows of one half (u or v) of a stored motion frame: the height, up to a multiple of 8 (a JPEG block)."""
    return -(-height // 8) * 8


def read_encoded(shard: Shard, first: int, total: int, request: ClipRequest) -> list[memoryview]:
    """The clip's encoded frames in the order of the clip, from one contiguous read.

    Args:
        shard: the packed shard.
        first: the video's first frame within the shard.
        total: frames of the video.
        request: which frames.
    """
    indices = frame_indices(request.start, request.num_frames, request.stride, total)
    lowest, highest = int(indices.min()), int(indices.max())
    encoded = shard.read_frames(first + lowest, first + highest + 1)
    chosen = [encoded[index - lowest] for index in indices.tolist()]
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
    """The request's pixels, (crop, crop, …): its rectangle resized, or the crop of the resized frame."""
    if request.rectangle is not None:
        top, left, height, width = request.rectangle
        return _resize(image[top : top + height, left : left + width], request.crop, request.crop)
    image = _resize(image, *resized_shape(image.shape[0], image.shape[1], request.short_side))
    top, left = crop_corner(image.shape[0], image.shape[1], request)
    return image[top : top + request.crop, left : left + request.crop]


def _factors(height: int, width: int, request: ClipRequest) -> tuple[float, float]:
    """How much longer displacements along x and along y are in what ``_cut`` gives."""
    if request.rectangle is not None:
        _, _, height, width = request.rectangle
        return request.crop / width, request.crop / height
    new_height, new_width = resized_shape(height, width, request.short_side)
    return new_width / width, new_height / height


def _scratch(encoded: memoryview, num_channels: int, what: str) -> np.ndarray:
    """Room for one decoded frame, used for all frames of a clip: fresh memory for each would cost page faults."""
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(encoded)
    except ValueError as error:
        raise _damaged(what, error) from error
    return np.empty((height, width, num_channels), dtype=np.uint8)


def _decode(encoded: memoryview, colour: str, what: str, scratch: np.ndarray) -> np.ndarray:
    try:
        return cast(np.ndarray, simplejpeg.decode_jpeg(encoded, colorspace=colour, buffer=scratch))
    except ValueError as error:
        raise _damaged(what, error) from error


def _damaged(what: str, error: Exception) -> UserError:
    return UserError(
        f"{what}: a stored frame is no valid JPEG ({error}). Delete the shard and run the same target again: "
        "Snakemake makes it anew."
    )


def decode_frames(encoded: Sequence[memoryview], request: ClipRequest, out: np.ndarray, what: str) -> None:
    """Decode, resize and crop RGB frames.

    Args:
        encoded: JPEGs in the order of the clip; an equal object twice (a looped video) is decoded once.
        request: resize and crop.
        out: uint8 (T, crop, crop, 3), written.
        what: named in errors.

    Raises:
        UserError: a frame is no JPEG.
    """
    seen: dict[int, int] = {}
    scratch = _scratch(encoded[0], 3, what)
    for position, piece in enumerate(encoded):
        earlier = seen.setdefault(id(piece), position)
        if earlier != position:
            out[position] = out[earlier]
            continue
        out[position] = _cut(_decode(piece, "RGB", what, scratch), request)


def decode_motion(
    encoded: Sequence[memoryview], height: int, width: int, request: ClipRequest, out: np.ndarray, what: str
) -> tuple[float, float]:
    """Decode, resize and crop motion frames (channels over each other in one grey JPEG).

    Args:
        encoded: JPEGs in the order of the clip.
        height: of the frame that the motion belongs to, pixels.
        width: of that frame, pixels.
        request: resize and crop.
        out: uint8 (T, crop, crop, C), written; C = 2 is (u, v).
        what: named in errors.

    Returns:
        Factors of u and of v: a resize by s makes every displacement s times as long. What is no displacement has no
        use for them.

    Raises:
        UserError: a frame is no JPEG, or its height is not that of a motion frame.
    """
    half, num_channels = padded_half(height), out.shape[-1]
    seen: dict[int, int] = {}
    scratch = _scratch(encoded[0], 1, what)
    for position, piece in enumerate(encoded):
        earlier = seen.setdefault(id(piece), position)
        if earlier != position:
            out[position] = out[earlier]
            continue
        image = _decode(piece, "GRAY", what, scratch)[..., 0]
        expected = (num_channels * half, width)
        if image.shape != expected:
            raise UserError(f"{what}: a motion frame has the shape {image.shape}, {expected} was expected")
        for channel in range(num_channels):
            out[position, ..., channel] = _cut(image[channel * half : channel * half + height], request)
    return _factors(height, width, request)
