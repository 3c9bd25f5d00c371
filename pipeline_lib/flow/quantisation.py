"""Motion as 8-bit JPEGs, u stacked over v in one grey image with exact zero motion, and back to physical units.

The Kinetics convention clips flow to ± 20 px and stores 8 bits (released preprocessing of the I3D authors,
deepmind/kinetics-i3d; S3D-G paper, section 6.1). Tools differ in the byte of zero (rounding gives 128, truncation 127).
Here q = round(127 · clip(value / bound, −1, 1)) + 128. So zero is exactly 128, negating a value is q → 256 − q, and a
still frame is a constant JPEG, which decodes to the same values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import simplejpeg
import torch

from pipeline_lib.media.motion_frames import padded, unstack_channels


@dataclass(frozen=True)
class Quantisation:
    """How values become bytes, as every motion shard records it (``provenance["parameters"]["quantisation"]``).

    Attributes:
        channels: what is stacked, from the top: ``("u", "v")`` or one name.
        bound: largest magnitude that is kept, in ``unit``.
        zero: the byte of the value 0.
        scale: the byte of ``bound`` minus ``zero``.
        unit: ``px`` for displacements, ``px/px`` for flow edges, ``grey`` levels for frame differences.
    """

    channels: tuple[str, ...]
    bound: float
    zero: int = 128
    scale: int = 127
    unit: str = "px"

    def attributes(self) -> dict[str, Any]:
        """Plain data for a shard's attributes."""
        return {
            "channels": list(self.channels),
            "bound": self.bound,
            "zero": self.zero,
            "scale": self.scale,
            "unit": self.unit,
            "rule": "byte = round(scale * clip(value / bound)) + zero; channels stacked, each padded to 8 rows",
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The quantisation of a finished motion shard (``Shard.record``)."""
        stored = record["parameters"]["quantisation"]
        return cls(tuple(stored["channels"]), stored["bound"], stored["zero"], stored["scale"], stored["unit"])

    def quantise(self, values: torch.Tensor) -> torch.Tensor:
        """Values to bytes, on the device where they lie.

        Args:
            values: float (…, C, H, W), in ``unit``.

        Returns:
            uint8 of the same shape; 1 … 255 for signed values, so that q → 256 − q negates.

        Raises:
            ValueError: a value is NaN or infinite.
        """
        if not bool(torch.isfinite(values).all()):
            raise ValueError("the motion holds values that are not finite")
        lowest = -1.0 if self.zero else 0.0
        scaled = (values.float() / self.bound).clamp_(lowest, 1.0).mul_(self.scale).round_().add_(self.zero)
        return scaled.to(torch.uint8)

    def dequantise(self, quantised: np.ndarray) -> np.ndarray:
        """Bytes to values in ``unit``, float32, within ± bound. JPEG may have moved a byte beyond the range."""
        return self.normalise(quantised) * np.float32(self.bound)

    def normalise(self, quantised: np.ndarray) -> np.ndarray:
        """Bytes to value / bound, float32 in [−1, 1] ([0, 1] where nothing is negative): what networks see."""
        values = (quantised.astype(np.float32) - np.float32(self.zero)) / np.float32(self.scale)
        clipped: np.ndarray = np.clip(values, -1.0 if self.zero else 0.0, 1.0)
        return clipped


def stack_channels(quantised: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) uint8 to images (N, C · padded(H), W): channels stacked, the last row repeated into the padding.

    Another padding would disturb the rows beside it, because a JPEG block has to show the edge.
    """
    height, width = quantised.shape[-2:]
    extra = padded(height) - height
    if extra:
        last = quantised[..., -1:, :].expand(*quantised.shape[:-2], extra, width)
        quantised = torch.cat([quantised, last], dim=-2)
    return quantised.reshape(quantised.shape[0], -1, width)


def encode_image(image: np.ndarray, quality: int) -> bytes:
    """One grey image (rows, W) uint8 as a JPEG."""
    jpeg: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image)[..., None],
        quality=quality,
        colorspace="GRAY",
        colorsubsampling="Gray",
        fastdct=False,
    )
    return jpeg


def decode_image(jpeg: bytes | memoryview, height: int) -> np.ndarray:
    """One motion frame's JPEG to bytes (C, H, W) uint8."""
    image = simplejpeg.decode_jpeg(jpeg, colorspace="GRAY", fastdct=False)[..., 0]
    return unstack_channels(image, height)
