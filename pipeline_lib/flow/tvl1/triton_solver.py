"""TV-L1's inner loops for the GPU in Triton; ``torch_solver`` is the definition, ``gpu`` uses them.

``iterate_tiles`` keeps a tile and its halo in registers for several iterations. With every iteration, errors from the
edge reach one pixel further in. So after n iterations the outer n pixels are wrong, and only the middle is written
back. ``tl.gather`` reads neighbours inside the tile.

Planes are float32 and contiguous: u (B, 2, H, W); p (B, 4, H, W) with p11, p12, p21, p22; constants (B, 4, H, W) with
the gradient along x and y, the constant part of ρ, 1 / |gradient|²; levels (N, 3, H, W).
"""
# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import triton
import triton.language as tl


@triton.jit
def _order(a, b):
    return tl.minimum(a, b), tl.maximum(a, b)


@triton.jit
def _sort5(a, b, c, d, e):
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


@triton.jit
def _column(pointer, x, y, height, width, mask):
    """Five vertical neighbours in column x (clamped), sorted."""
    column = tl.minimum(tl.maximum(x, 0), width - 1)
    a = tl.load(pointer + tl.maximum(y - 2, 0) * width + column, mask=mask, other=0.0)
    b = tl.load(pointer + tl.maximum(y - 1, 0) * width + column, mask=mask, other=0.0)
    c = tl.load(pointer + y * width + column, mask=mask, other=0.0)
    d = tl.load(pointer + tl.minimum(y + 1, height - 1) * width + column, mask=mask, other=0.0)
    e = tl.load(pointer + tl.minimum(y + 2, height - 1) * width + column, mask=mask, other=0.0)
    return _sort5(a, b, c, d, e)


@triton.jit
def _median(pointer, x, y, height, width, mask):
    """5×5 median, borders repeated: the network of ``median_network``."""
    p0, p1, p2, p3, p4 = _column(pointer, x - 2, y, height, width, mask)
    q0, q1, q2, q3, q4 = _column(pointer, x - 1, y, height, width, mask)
    r0, r1, r2, r3, r4 = _column(pointer, x, y, height, width, mask)
    s0, s1, s2, s3, s4 = _column(pointer, x + 1, y, height, width, mask)
    t0, t1, t2, t3, t4 = _column(pointer, x + 2, y, height, width, mask)
    _a0, _a1, _a2, a3, a4 = _sort5(p0, q0, r0, s0, t0)
    _b0, _b1, b2, b3, b4 = _sort5(p1, q1, r1, s1, t1)
    _c0, c1, c2, c3, _c4 = _sort5(p2, q2, r2, s2, t2)
    d0, d1, d2, _d3, _d4 = _sort5(p3, q3, r3, s3, t3)
    e0, e1, _e2, _e3, _e4 = _sort5(p4, q4, r4, s4, t4)
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


@triton.jit
def _cubic(x, tap: tl.constexpr):
    """OpenCV's cubic weight (a = −0.75) of tap −1 … 2 (``tap`` 0 … 3) for an offset in [0, 1)."""
    if tap == 0:
        z = x + 1.0
        weight = ((-0.75 * z + 3.75) * z - 6.0) * z + 3.0
    elif tap == 1:
        weight = (1.25 * x - 2.25) * x * x + 1.0
    elif tap == 2:
        y = 1.0 - x
        weight = (1.25 * y - 2.25) * y * y + 1.0
    else:
        z = 2.0 - x
        weight = ((-0.75 * z + 3.75) * z - 6.0) * z + 3.0
    return weight


@triton.jit
def prepare_warp(
    levels,
    u_in,
    u_out,
    constants,
    first_offset,
    second_offset,
    height,
    width,
    epsilon,
    FILTER: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Fill the constants of a warp from u, and write the median of u to ``u_out``. Grid: (blocks of pixels, pairs)."""
    pair = tl.program_id(1).to(tl.int64)
    size = height * width
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = index < size
    x, y = index % width, index // width
    u_pair = u_in + pair * 2 * size
    u1 = tl.load(u_pair + index, mask=mask, other=0.0)
    u2 = tl.load(u_pair + size + index, mask=mask, other=0.0)
    second = levels + (pair + second_offset) * 3 * size
    # Beyond these bounds every tap lies outside, where everything is zero.
    xs = tl.minimum(tl.maximum(x + u1, -8.0), width + 8.0)
    ys = tl.minimum(tl.maximum(y + u2, -8.0), height + 8.0)
    x0, y0 = tl.floor(xs), tl.floor(ys)
    fx, fy = xs - x0, ys - y0
    column, row = x0.to(tl.int32), y0.to(tl.int32)
    value = tl.zeros([BLOCK], tl.float32)
    ix = tl.zeros([BLOCK], tl.float32)
    iy = tl.zeros([BLOCK], tl.float32)
    for j in tl.static_range(4):
        for i in tl.static_range(4):
            xx, yy = column + (i - 1), row + (j - 1)
            inside = mask & (xx >= 0) & (xx < width) & (yy >= 0) & (yy < height)
            weight = _cubic(fx, i) * _cubic(fy, j)
            place = second + yy * width + xx
            value += weight * tl.load(place, mask=inside, other=0.0)
            ix += weight * tl.load(place + size, mask=inside, other=0.0)
            iy += weight * tl.load(place + 2 * size, mask=inside, other=0.0)
    first = tl.load(levels + (pair + first_offset) * 3 * size + index, mask=mask, other=0.0)
    out = constants + pair * 4 * size + index
    tl.store(out, ix, mask=mask)
    tl.store(out + size, iy, mask=mask)
    tl.store(out + 2 * size, value - ix * u1 - iy * u2 - first, mask=mask)
    tl.store(out + 3 * size, 1.0 / tl.maximum(ix * ix + iy * iy, epsilon), mask=mask)
    if FILTER:
        u1 = _median(u_pair, x, y, height, width, mask)
        u2 = _median(u_pair + size, x, y, height, width, mask)
    tl.store(u_out + pair * 2 * size + index, u1, mask=mask)
    tl.store(u_out + pair * 2 * size + size + index, u2, mask=mask)


@triton.jit
def _dual(px, py, u, right, below, has_right, has_below, rate):
    """The dual update of one component; differences are 0 in the last column and row."""
    ux = tl.where(has_right, tl.gather(u, right, 1) - u, 0.0) * rate
    uy = tl.where(has_below, tl.gather(u, below, 0) - u, 0.0) * rate
    scale = 1.0 / (1.0 + tl.sqrt(ux * ux + uy * uy))
    return (px + ux) * scale, (py + uy) * scale


@triton.jit
def iterate_tiles(
    u_in,
    p_in,
    u_out,
    p_out,
    constants,
    height,
    width,
    limit,
    theta,
    rate,
    COUNT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """``COUNT`` iterations of a tile of ROWS × COLUMNS pixels, halo included. Grid: (tiles along x, along y, pairs)."""
    pair = tl.program_id(2).to(tl.int64)
    size = height * width
    row = tl.arange(0, ROWS)[:, None] + tl.zeros([1, COLUMNS], tl.int32)
    column = tl.arange(0, COLUMNS)[None, :] + tl.zeros([ROWS, 1], tl.int32)
    y = tl.program_id(1) * (ROWS - 2 * COUNT) - COUNT + row
    x = tl.program_id(0) * (COLUMNS - 2 * COUNT) - COUNT + column
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    place = y * width + x
    fixed = constants + pair * 4 * size + place
    ix = tl.load(fixed, mask=inside, other=0.0)
    iy = tl.load(fixed + size, mask=inside, other=0.0)
    rho_constant = tl.load(fixed + 2 * size, mask=inside, other=0.0)
    inverse = tl.load(fixed + 3 * size, mask=inside, other=0.0)
    u1 = tl.load(u_in + pair * 2 * size + place, mask=inside, other=0.0)
    u2 = tl.load(u_in + pair * 2 * size + size + place, mask=inside, other=0.0)
    dual = p_in + pair * 4 * size + place
    p11 = tl.load(dual, mask=inside, other=0.0)
    p12 = tl.load(dual + size, mask=inside, other=0.0)
    p21 = tl.load(dual + 2 * size, mask=inside, other=0.0)
    p22 = tl.load(dual + 3 * size, mask=inside, other=0.0)
    left, right = tl.maximum(column - 1, 0), tl.minimum(column + 1, COLUMNS - 1)
    above, below = tl.maximum(row - 1, 0), tl.minimum(row + 1, ROWS - 1)
    has_left, has_above = x > 0, y > 0
    has_right, has_below = x < width - 1, y < height - 1
    for _ in range(COUNT):
        rho = rho_constant + ix * u1 + iy * u2
        step = tl.minimum(tl.maximum(-rho * inverse, -limit), limit)
        divergence1 = p11 - tl.where(has_left, tl.gather(p11, left, 1), 0.0)
        divergence1 += p12 - tl.where(has_above, tl.gather(p12, above, 0), 0.0)
        divergence2 = p21 - tl.where(has_left, tl.gather(p21, left, 1), 0.0)
        divergence2 += p22 - tl.where(has_above, tl.gather(p22, above, 0), 0.0)
        u1 += step * ix + theta * divergence1
        u2 += step * iy + theta * divergence2
        p11, p12 = _dual(p11, p12, u1, right, below, has_right, has_below, rate)
        p21, p22 = _dual(p21, p22, u2, right, below, has_right, has_below, rate)
    kept = inside & (row >= COUNT) & (row < ROWS - COUNT) & (column >= COUNT) & (column < COLUMNS - COUNT)
    tl.store(u_out + pair * 2 * size + place, u1, mask=kept)
    tl.store(u_out + pair * 2 * size + size + place, u2, mask=kept)
    target = p_out + pair * 4 * size + place
    tl.store(target, p11, mask=kept)
    tl.store(target + size, p12, mask=kept)
    tl.store(target + 2 * size, p21, mask=kept)
    tl.store(target + 3 * size, p22, mask=kept)
