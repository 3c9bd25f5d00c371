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
    """Bilinear when enlarging, area average when shrinking (no aliasing)."""
    shrinks = height < image.shape[0] or width < image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


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
        image = _decode(piece, "RGB", what, scratch)
        height, width = resized_shape(image.shape[0], image.shape[1], request.short_side)
        top, left = crop_corner(height, width, request)
        if (height, width) != image.shape[:2]:
            image = _resize(image, height, width)
        out[position] = image[top : top + request.crop, left : left + request.crop]


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
    new_height, new_width = resized_shape(height, width, request.short_side)
    top, left = crop_corner(new_height, new_width, request)
    window = np.s_[top : top + request.crop, left : left + request.crop]
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
            plane = image[channel * half : channel * half + height]
            if (new_height, new_width) != (height, width):
                plane = _resize(plane, new_height, new_width)
            out[position, ..., channel] = plane[window]
    return new_width / width, new_height / height
