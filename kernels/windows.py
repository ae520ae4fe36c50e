"""Squared differences of images, and their sums over windows around pixels, in float64, for `local.py`.

Sums are made by doubling, of the numbers in the window alone and in one order for all images: so nothing cancels, and
patches that tie have the same sum. A sum over neighbours takes them from other threads of the warp (`tl.gather`).
"""

import triton
import triton.language as tl

from geodiff.kernels.refine import centred


@triton.jit
def asked(x_ptr, at, there, shift, unit):
    """x in centred units."""
    return tl.load(x_ptr + at, mask=there, other=0.0).to(tl.float64) * unit - shift


@triton.jit
def squares(
    x_ptr, row_ptr, u, v, column, there, channels, plane, line, step, shift, unit, C: tl.constexpr
):  # fmt: skip
    """e = sum_c (x[c, u, v] - row[c, u, column])^2 where a pixel is, else 0. C: how many channels; 0: any number."""
    at, at_row = u * line + v * step, u * line + column * step
    e = tl.zeros_like(at).to(tl.float64)
    if C > 0:
        for c in tl.static_range(C):
            off = asked(x_ptr, at + c * plane, there, shift, unit)
            off -= centred(tl.load(row_ptr + at_row + c * plane, mask=there, other=0))
            e += off * off
    else:
        for c in range(channels):
            off = asked(x_ptr, at + c * plane, there, shift, unit)
            off -= centred(tl.load(row_ptr + at_row + c * plane, mask=there, other=0))
            e += off * off
    return tl.where(there, e, 0.0)


@triton.jit
def _moved(e, at, size, WRAP: tl.constexpr, AXIS: tl.constexpr, TILE: tl.constexpr):
    """e at the places `at` along an axis of TILE places: beyond its ends 0, or WRAP: places go round after `size`."""
    if WRAP:
        at = tl.where(at < 0, at + size, tl.where(at < size, at, at - size))
        return tl.gather(e, at, AXIS)
    else:
        inside = (at >= 0) & (at < TILE)
        return tl.where(inside, tl.gather(e, tl.where(inside, at, 0), AXIS), 0.0)


@triton.jit
def window_sums(e, at, size, HALF: tl.constexpr, WRAP: tl.constexpr, AXIS: tl.constexpr, TILE: tl.constexpr):
    """Sums over [at - HALF, at + HALF] along an axis that lies in the tile as a whole: HALF + 1 up to `at`, HALF on."""
    up_to, onwards = e, e  # sums over the 2^j places up to each, and from each on
    total = tl.zeros_like(e)
    for j in tl.static_range(6):  # of places in a tile there are 32 at most
        if (HALF + 1) // 2**j % 2 == 1:
            if (HALF + 1) % 2**j == 0:
                total += up_to
            else:
                total += _moved(up_to, at - (HALF + 1) % 2**j, size, WRAP, AXIS, TILE)
        if HALF // 2**j % 2 == 1:
            total += _moved(onwards, at + 1 + HALF % 2**j, size, WRAP, AXIS, TILE)
        if (HALF + 1) // 2 ** (j + 1) > 0:
            up_to += _moved(up_to, at - 2**j, size, WRAP, AXIS, TILE)
        if HALF // 2 ** (j + 1) > 0:
            onwards += _moved(onwards, at + 2**j, size, WRAP, AXIS, TILE)
    return total


@triton.jit
def _runs(e, at, longer, LENGTH: tl.constexpr, AXIS: tl.constexpr, TILE: tl.constexpr):
    """Sums of the LENGTH places of an axis from `at` on, and of one more if `longer`, where the tile holds them."""
    place = tl.arange(0, TILE)[:, None] if AXIS == 0 else tl.arange(0, TILE)[None, :]
    place += tl.zeros_like(e).to(tl.int32)
    total = tl.where(longer, tl.gather(e, tl.minimum(at + LENGTH, TILE - 1), AXIS), 0.0)
    for j in tl.static_range(6):
        if LENGTH // 2**j % 2 == 1:
            total += tl.gather(e, tl.minimum(at + LENGTH % 2**j, TILE - 1), AXIS)
        if LENGTH // 2 ** (j + 1) > 0:
            e += tl.gather(e, tl.minimum(place + 2**j, TILE - 1), AXIS)
    return total


@triton.jit
def pieced_sums(
    x_ptr, row_ptr, flipped, u0, v0, channels, height, width, plane, line, step, shift, unit,
    HALF_U: tl.constexpr, HALF_V: tl.constexpr, CIRCULAR: tl.constexpr, C: tl.constexpr,
    HB: tl.constexpr, WB: tl.constexpr, SIDE: tl.constexpr, USED: tl.constexpr,
):  # fmt: skip
    """Sums of e over windows around the pixels [HB, WB] from (u0, v0) on, USED each way, of an image of any size.

    From tiles [SIDE, SIDE] of e that begin where windows do, which can be SIDE - USED + 1 long: longer ones are taken
    in pieces of two lengths, a tile for each.
    """
    pieces_u: tl.constexpr = (2 * HALF_U + SIDE - USED + 1) // (SIDE - USED + 1)
    pieces_v: tl.constexpr = (2 * HALF_V + SIDE - USED + 1) // (SIDE - USED + 1)
    length_u: tl.constexpr = (2 * HALF_U + 1) // pieces_u
    length_v: tl.constexpr = (2 * HALF_V + 1) // pieces_v
    longer_u: tl.constexpr = (2 * HALF_U + 1) % pieces_u  # so many of them, the first ones, are longer by one
    longer_v: tl.constexpr = (2 * HALF_V + 1) % pieces_v
    at_u = tl.arange(0, HB)[:, None] + tl.zeros((HB, SIDE), tl.int32)
    at_v = tl.arange(0, WB)[None, :] + tl.zeros((HB, WB), tl.int32)
    total = tl.zeros((HB, WB), tl.float64)
    for piece in range(pieces_u * pieces_v):
        i, j = piece // pieces_v, piece % pieces_v
        u = u0 - HALF_U + i * length_u + tl.minimum(i, longer_u) + tl.arange(0, SIDE)[:, None]
        v = v0 - HALF_V + j * length_v + tl.minimum(j, longer_v) + tl.arange(0, SIDE)[None, :]
        if CIRCULAR:
            u, v = (u + height) % height, (v + width) % width
        there = (u >= 0) & (u < height) & (v >= 0) & (v < width)
        column = tl.where(flipped, width - 1 - v, v)
        e = squares(x_ptr, row_ptr, u, v, column, there, channels, plane, line, step, shift, unit, C)
        e = _runs(e, at_u, i < longer_u, length_u, 0, SIDE)
        total += _runs(e, at_v, j < longer_v, length_v, 1, SIDE)
    return total
