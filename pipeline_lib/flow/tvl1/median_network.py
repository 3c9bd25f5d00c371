"""The 5×5 median as a sorting network, which has no branches and so can run on whole vectors of pixels.

Columns of five are sorted once per pixel and shared by the five windows that hold them. Sorting the rows of five sorted
columns leaves a matrix that grows along both axes; an element (i, j) of it is then not below (i+1)(j+1) and not above
(5−i)(5−j) of the 25, itself included, so that only 13 can be the median, and it is the median of these. The last 19
comparators were found by a beam search over networks, and checked on all 252 monotone 0-1 matrices (0-1 principle:
Knuth, The Art of Computer Programming 3, 5.3.4).
"""

from typing import Any

from numba import njit

_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": True, "cache": True, "error_model": "numpy"}
# Inlined, because a loop with a call is not vectorised.
_INLINED: dict[str, Any] = _OPTIONS | {"forceinline": True}


@njit(**_INLINED)
def _order(a, b):  # type: ignore[no-untyped-def]
    return (a if a < b else b), (b if a < b else a)


@njit(**_INLINED)
def _sort5(a, b, c, d, e):  # type: ignore[no-untyped-def]
    """Nine comparators, the fewest for five values."""
    a, b = _order(a, b)
    d, e = _order(d, e)
    c, e = _order(c, e)
    c, d = _order(c, d)
    b, e = _order(b, e)
    a, d = _order(a, d)
    a, c = _order(a, c)
    b, d = _order(b, d)
    b, c = _order(b, c)
    return a, b, c, d, e


@njit(**_INLINED)
def _median_of_rows(r0, r1, r2, r3, r4):  # type: ignore[no-untyped-def]
    """Median of five rows whose columns are sorted downwards."""
    _, _, _, a3, a4 = _sort5(r0[0], r0[1], r0[2], r0[3], r0[4])
    _, _, b2, b3, b4 = _sort5(r1[0], r1[1], r1[2], r1[3], r1[4])
    _, c1, c2, c3, _ = _sort5(r2[0], r2[1], r2[2], r2[3], r2[4])
    d0, d1, d2, _, _ = _sort5(r3[0], r3[1], r3[2], r3[3], r3[4])
    e0, e1, _, _, _ = _sort5(r4[0], r4[1], r4[2], r4[3], r4[4])
    a3, c1 = _order(a3, c1)
    b4, e1 = _order(b4, e1)
    a4, d2 = _order(a4, d2)
    b2, d0 = _order(b2, d0)
    c1, d0 = _order(c1, d0)
    c3, e0 = _order(c3, e0)
    a4, b3 = _order(a4, b3)
    a4, b4 = _order(a4, b4)
    a4, c2 = _order(a4, c2)
    a4, c3 = _order(a4, c3)
    b3, b4 = _order(b3, b4)
    b4, d1 = _order(b4, d1)
    b3, b4 = _order(b3, b4)
    c2, c3 = _order(c2, c3)
    b3, c2 = _order(b3, c2)
    b4, c3 = _order(b4, c3)
    b4, c2 = _order(b4, c2)
    b4, d0 = _order(b4, d0)
    c2, d0 = _order(c2, d0)
    return c2


@njit(**_OPTIONS)
def median_5x5(source, target, columns):  # type: ignore[no-untyped-def]
    """5×5 median with repeated borders, as ``cv2.medianBlur``.

    Args:
        source: float32 (H, W).
        target: float32 (H, W), not ``source``; gets the medians.
        columns: float32 (5, W + 4), scratch.
    """
    height, width = target.shape
    for y in range(height):
        y0, y1, y3, y4 = max(y - 2, 0), max(y - 1, 0), min(y + 1, height - 1), min(y + 2, height - 1)
        for x in range(width):
            a, b, c, d, e = _sort5(source[y0, x], source[y1, x], source[y, x], source[y3, x], source[y4, x])
            columns[0, x + 2] = a
            columns[1, x + 2] = b
            columns[2, x + 2] = c
            columns[3, x + 2] = d
            columns[4, x + 2] = e
        for i in range(5):
            columns[i, 0] = columns[i, 1] = columns[i, 2]
            columns[i, width + 2] = columns[i, width + 3] = columns[i, width + 1]
        for x in range(width):
            target[y, x] = _median_of_rows(
                (columns[0, x], columns[0, x + 1], columns[0, x + 2], columns[0, x + 3], columns[0, x + 4]),
                (columns[1, x], columns[1, x + 1], columns[1, x + 2], columns[1, x + 3], columns[1, x + 4]),
                (columns[2, x], columns[2, x + 1], columns[2, x + 2], columns[2, x + 3], columns[2, x + 4]),
                (columns[3, x], columns[3, x + 1], columns[3, x + 2], columns[3, x + 3], columns[3, x + 4]),
                (columns[4, x], columns[4, x + 1], columns[4, x + 2], columns[4, x + 3], columns[4, x + 4]),
            )
