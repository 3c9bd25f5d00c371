"""RAFT's look-up in the correlation pyramid on the CPU, compiled.

A look-up reads the correlations of a pixel with the (2r + 1)² points around its estimated new place. All of these lie
at the same fraction between pixels, so that (2r + 2)² values and four weights give them. torchvision's
``CorrBlock.index_pyramid`` gives the same values but interpolates each alone.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit


@njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def _look_up(level, points, scale, radius, out, offset):  # type: ignore[no-untyped-def]
    """Columns ``offset`` … of ``out`` (N, C) from ``level`` (N, H, W) around ``points`` (N, 2) · scale; zero outside.

    The order is torchvision's: the first of the two offsets moves along x.
    """
    num_points, height, width = level.shape
    side = 2 * radius + 1
    patch = np.empty((side + 1, side + 1), np.float32)
    one = np.float32(1)
    for n in range(num_points):
        # Beyond these bounds every point lies outside, where everything is zero.
        x = min(max(points[n, 0] * scale, np.float32(-radius - 2)), np.float32(width + radius + 1))
        y = min(max(points[n, 1] * scale, np.float32(-radius - 2)), np.float32(height + radius + 1))
        column, row = int(np.floor(x)), int(np.floor(y))
        fx, fy = x - np.float32(column), y - np.float32(row)
        left, top = column - radius, row - radius
        for j in range(side + 1):
            for i in range(side + 1):
                inside = 0 <= top + j < height and 0 <= left + i < width
                patch[i, j] = level[n, top + j, left + i] if inside else np.float32(0)
        a, b, c, d = (one - fx) * (one - fy), fx * (one - fy), (one - fx) * fy, fx * fy
        for i in range(side):
            for j in range(side):
                out[n, offset + i * side + j] = (
                    a * patch[i, j] + b * patch[i + 1, j] + c * patch[i, j + 1] + d * patch[i + 1, j + 1]
                )


class CorrelationPyramid:
    """Correlations of every pixel of one feature map with every pixel of another, at several scales.

    Args:
        first: features (B, C, H, W) float32, contiguous.
        second: the same of the other frame.
        num_levels: scales; the last feature map's sides are halved ``num_levels − 1`` times.
        radius: of a look-up, pixels of each scale.
    """

    def __init__(self, first: torch.Tensor, second: torch.Tensor, num_levels: int, radius: int) -> None:
        self._radius = radius
        # Correlations are linear in the features, so features are scaled and pooled instead of correlations.
        rows = (first / first.shape[1] ** 0.5).flatten(2).transpose(1, 2)
        self._levels = []
        for number in range(num_levels):
            if number:
                second = F.avg_pool2d(second, 2, 2)
            # Matrix products, as 1 × 1 convolutions: oneDNN takes half of MKL's time on an AMD processor.
            parts = [F.conv2d(second[n : n + 1], row[:, :, None, None])[0] for n, row in enumerate(rows)]
            level = parts[0] if len(parts) == 1 else torch.cat(parts)
            self._levels.append(level.contiguous().numpy())

    def look_up(self, points: torch.Tensor) -> torch.Tensor:
        """Correlations (B, levels · (2r + 1)², H, W) around points (B, 2, H, W), in channels-last memory."""
        batch, _, height, width = points.shape
        flat = points.permute(0, 2, 3, 1).reshape(-1, 2).contiguous().numpy()
        values = (2 * self._radius + 1) ** 2
        out = np.empty((len(flat), values * len(self._levels)), np.float32)
        for number, level in enumerate(self._levels):
            _look_up(level, flat, np.float32(0.5**number), self._radius, out, number * values)
        return torch.from_numpy(out).view(batch, height, width, -1).permute(0, 3, 1, 2)
