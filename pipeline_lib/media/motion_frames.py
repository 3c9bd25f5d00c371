"""How the channels of a motion frame lie in its one grey image: over each other, each padded to whole JPEG blocks.

Who writes motion and who reads clips of it agree on this alone: an edit to a flow's code retrains no RGB network.
"""

import numpy as np

JPEG_BLOCK = 8


def padded(size: int) -> int:
    """``size`` rounded up to whole JPEG blocks, so that no block mixes two channels."""
    return -(-size // JPEG_BLOCK) * JPEG_BLOCK


def unstack_channels(image: np.ndarray, height: int) -> np.ndarray:
    """One stored image (C · padded(H), W) to (C, H, W), the padding dropped.

    Args:
        image: uint8, as decoded.
        height: rows of the frame (``ShardVideo.height``).
    """
    return image.reshape(-1, padded(height), image.shape[-1])[:, :height]
