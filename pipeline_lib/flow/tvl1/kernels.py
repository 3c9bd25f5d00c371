"""TV-L1's inner loops for the CPU, compiled by numba; ``torch_solver`` is the definition, ``cpu`` uses them.

All iterations of a warp run in one sweep over the rows. Iteration k works one row behind iteration k − 1, which has
then written all that k needs. The rows in use stay in the L2 cache, so that a level is read from memory once per warp
instead of once per iteration.

Array conventions, float32: u (2, H, W + 1) with one spare column on the right; px (2, H, W + 1) with a zero column on
the left, pixel x at x + 1; py (2, H + 1, W) with a zero row at the top, pixel y at y + 1; a frame's level is ``packed``
(H + 8, W + 8, 4): intensity, its x and its y gradient, 0, inside a margin of 4 zero pixels.
"""

from typing import Any

import numpy as np
from numba import njit

from pipeline_lib.flow.tvl1.parameters import CUBIC_A, FLT_EPSILON

MARGIN = 4

_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": True, "cache": True, "error_model": "numpy"}
_INLINED: dict[str, Any] = _OPTIONS | {"forceinline": True}

_A = np.float32(CUBIC_A)
_EPSILON = np.float32(FLT_EPSILON)
_ONE = np.float32(1)
_HALF = np.float32(0.5)


@njit(**_OPTIONS)
def pack_level(image, packed):  # type: ignore[no-untyped-def]
    """Fill ``packed`` (whose margin is zero already) with an image (H, W) and its centred gradients."""
    height, width = image.shape
    for y in range(height):
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            left, right = max(x - 1, 0), min(x + 1, width - 1)
            packed[y + MARGIN, x + MARGIN, 0] = image[y, x]
            packed[y + MARGIN, x + MARGIN, 1] = _HALF * (image[y, right] - image[y, left])
            packed[y + MARGIN, x + MARGIN, 2] = _HALF * (image[below, x] - image[above, x])


@njit(**_INLINED)
def _tap(position, size, scale):  # type: ignore[no-untyped-def]
    """Left neighbour and weight of the right one for a half-pixel centre, as in ``cv::resize``."""
    source = np.float32((position + 0.5) * scale - 0.5)
    left = int(np.floor(source))
    weight = source - np.float32(left)
    if left < 0:
        return 0, np.float32(0)
    if left >= size - 1:
        return size - 1, np.float32(0)
    return left, weight


@njit(**_OPTIONS)
def resize_level(source, height, width, target, scale_y, scale_x, factor):  # type: ignore[no-untyped-def]
    """``cv::resize`` with INTER_LINEAR of the top left (height, width) of ``source``, times ``factor``.

    ``scale_y`` and ``scale_x``: source pixels per target pixel. ``target`` is filled up to its shape.
    """
    rows, columns = target.shape
    lefts = np.empty(columns, np.int64)
    weights = np.empty(columns, np.float32)
    for x in range(columns):
        lefts[x], weights[x] = _tap(x, width, scale_x)
    for y in range(rows):
        top, down = _tap(y, height, scale_y)
        bottom = min(top + 1, height - 1)
        for x in range(columns):
            left = lefts[x]
            right = min(left + 1, width - 1)
            a, b = source[top, left], source[bottom, left]
            a += (source[top, right] - a) * weights[x]
            b += (source[bottom, right] - b) * weights[x]
            target[y, x] = (a + (b - a) * down) * factor


@njit(**_INLINED)
def _cubic(x):  # type: ignore[no-untyped-def]
    y = _ONE - x
    z = x + _ONE
    w0 = ((_A * z - np.float32(5) * _A) * z + np.float32(8) * _A) * z - np.float32(4) * _A
    w1 = ((_A + np.float32(2)) * x - (_A + np.float32(3))) * x * x + _ONE
    w2 = ((_A + np.float32(2)) * y - (_A + np.float32(3))) * y * y + _ONE
    return w0, w1, w2, _ONE - w0 - w1 - w2


@njit(**_INLINED)
def _row_of_taps(packed, row, column, w0, w1, w2, w3):  # type: ignore[no-untyped-def]
    """Four horizontal taps of all three images, which are neighbours in memory."""
    a = packed[row, column, 0] * w0 + packed[row, column + 1, 0] * w1
    b = packed[row, column, 1] * w0 + packed[row, column + 1, 1] * w1
    c = packed[row, column, 2] * w0 + packed[row, column + 1, 2] * w1
    a += packed[row, column + 2, 0] * w2 + packed[row, column + 3, 0] * w3
    b += packed[row, column + 2, 1] * w2 + packed[row, column + 3, 1] * w3
    c += packed[row, column + 2, 2] * w2 + packed[row, column + 3, 2] * w3
    return a, b, c


@njit(**_OPTIONS)
def warp_level(first, packed, u, constants):  # type: ignore[no-untyped-def]
    """Sample the second frame at the points that u leads to, and compute what is constant during the warp.

    ``first`` is the first frame's packed level; ``constants`` (4, H, W): gradient along x and y, constant part of ρ,
    1 / |gradient|².
    """
    _, height, width = constants.shape
    for y in range(height):
        for x in range(width):
            u1, u2 = u[0, y, x], u[1, y, x]
            # Beyond these bounds all 16 taps lie in the zero margin.
            xs = min(max(np.float32(x) + u1, np.float32(-3)), np.float32(width) + np.float32(1.5))
            ys = min(max(np.float32(y) + u2, np.float32(-3)), np.float32(height) + np.float32(1.5))
            xf, yf = np.floor(xs), np.floor(ys)
            column, row = int(xf) + MARGIN - 1, int(yf) + MARGIN - 1
            w0, w1, w2, w3 = _cubic(xs - xf)
            v0, v1, v2, v3 = _cubic(ys - yf)
            a0, b0, c0 = _row_of_taps(packed, row, column, w0, w1, w2, w3)
            a1, b1, c1 = _row_of_taps(packed, row + 1, column, w0, w1, w2, w3)
            a2, b2, c2 = _row_of_taps(packed, row + 2, column, w0, w1, w2, w3)
            a3, b3, c3 = _row_of_taps(packed, row + 3, column, w0, w1, w2, w3)
            value = a0 * v0 + a1 * v1 + a2 * v2 + a3 * v3
            ix = b0 * v0 + b1 * v1 + b2 * v2 + b3 * v3
            iy = c0 * v0 + c1 * v1 + c2 * v2 + c3 * v3
            constants[0, y, x] = ix
            constants[1, y, x] = iy
            constants[2, y, x] = value - ix * u1 - iy * u2 - first[y + MARGIN, x + MARGIN, 0]
            constants[3, y, x] = _ONE / max(ix * ix + iy * iy, _EPSILON)


@njit(**_INLINED)
def _primal_row(u, px, py, constants, step, y, width, limit, theta):  # type: ignore[no-untyped-def]
    """One row of the threshold step and the update of u; returns the squared change.

    ``step`` (W): scratch. There are two loops because the compiler does not vectorise a loop with too many arrays that
    might overlap.
    """
    for x in range(width):
        rho = constants[2, y, x] + constants[0, y, x] * u[0, y, x] + constants[1, y, x] * u[1, y, x]
        step[x] = min(max(-rho * constants[3, y, x], -limit), limit)
    change = np.float32(0)
    for i in range(2):
        for x in range(width):
            divergence = px[i, y, x + 1] - px[i, y, x] + py[i, y + 1, x] - py[i, y, x]
            difference = step[x] * constants[i, y, x] + theta * divergence
            change += difference * difference
            u[i, y, x] += difference
        u[i, y, width] = u[i, y, width - 1]
    return change


@njit(**_INLINED)
def _dual_row(u, px, py, y, below, width, rate):  # type: ignore[no-untyped-def]
    """One row of the dual update; ``below`` is y in the last row, where the difference is 0."""
    for i in range(2):
        for x in range(width):
            here = u[i, y, x]
            ux = rate * (u[i, y, x + 1] - here)
            uy = rate * (u[i, below, x] - here)
            scale = _ONE / (_ONE + np.sqrt(ux * ux + uy * uy))
            px[i, y, x + 1] = (px[i, y, x + 1] + ux) * scale
            py[i, y + 1, x] = (py[i, y + 1, x] + uy) * scale


@njit(**_OPTIONS)
def iterate(u, px, py, constants, step, count, limit, theta, rate):  # type: ignore[no-untyped-def]
    """``count`` iterations in one sweep; returns the squared change of u of the last one."""
    _, height, width = constants.shape
    change = 0.0
    for front in range(height + count):
        for k in range(max(0, front - height), min(count, front + 1)):
            y = front - k
            if y < height:
                moved = _primal_row(u, px, py, constants, step, y, width, limit, theta)
                if k == count - 1:
                    change += np.float64(moved)
            if y > 0:
                _dual_row(u, px, py, y - 1, min(y, height - 1), width, rate)
    return change
