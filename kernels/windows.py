"""Squared differences of images, and their sums over windows around pixels, in float64, for `local.py` and `crops.py`.

Sums are made by doubling, of the numbers in the window alone and in one order for all images: so nothing cancels, and
patches that tie have the same sum. A sum over neighbours takes them from other threads of the warp (`tl.gather`).
"""

import triton
import triton.language as tl

from geodiff.kernels.refine import centred
from geodiff.kernels.values import asked


@triton.jit
def squares(
    x_ptr, row_ptr, u, v, lines, column, there, channels, plane, line, step, shift, unit, C: tl.constexpr
):  # fmt: skip
    """e = sum_c (x[c, u, v] - row[c, lines, column])^2 where a pixel is, else 0. C: how many channels; 0: any."""
    at, at_row = u * line + v * step, lines * line + column * step
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
def displaced(u, by, size, HALF: tl.constexpr, RULE: tl.constexpr):
    """Along an axis u + by, and whether its window is a candidate for that of u."""
    s = u + by
    if RULE == 1:
        s = tl.where(s < size, s, s - size)
        return s, s >= 0
    elif RULE == 2:
        s = tl.where(s < size, s, s - size)
        return s, (s >= HALF) & (s < size - HALF)
    else:  # clipped alike: at the same place, or nowhere
        return s, (by == 0) | (tl.minimum(u, s) >= HALF) & (tl.maximum(u, s) < size - HALF)


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
def neighbour_sums(
    total, e, at, size, COUNT: tl.constexpr, START: tl.constexpr, SIGN: tl.constexpr, WRAP: tl.constexpr,
    AXIS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """total, and the sum over the COUNT places of an axis from START away on, in direction SIGN; 32 at most."""
    for j in tl.static_range(6):  # e: sums over the 2^j places from each on
        if COUNT // 2**j % 2 == 1:
            if START + COUNT % 2**j == 0:
                total += e
            else:
                total += _moved(e, at + SIGN * (START + COUNT % 2**j), size, WRAP, AXIS, TILE)
        if COUNT // 2 ** (j + 1) > 0:
            e += _moved(e, at + SIGN * 2**j, size, WRAP, AXIS, TILE)
    return total


@triton.jit
def window_sums(e, at, size, HALF: tl.constexpr, WRAP: tl.constexpr, AXIS: tl.constexpr, TILE: tl.constexpr):
    """Sums over [at - HALF, at + HALF] along an axis that lies in the tile as a whole: HALF + 1 up to `at`, HALF on."""
    total = neighbour_sums(tl.zeros_like(e), e, at, size, HALF + 1, 0, -1, WRAP, AXIS, TILE)
    return neighbour_sums(total, e, at, size, HALF, 1, 1, WRAP, AXIS, TILE)


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
    LONG_U: tl.constexpr, LONG_V: tl.constexpr, CIRCULAR: tl.constexpr, C: tl.constexpr,
    HB: tl.constexpr, WB: tl.constexpr, SIDE: tl.constexpr, USED: tl.constexpr,
):  # fmt: skip
    """Sums of e over [HB, WB] windows of LONG_U x LONG_V that begin from (u0, v0) on, USED each way, in any image.

    From tiles [SIDE, SIDE] of e that begin where windows do, which can be SIDE - USED + 1 long: longer ones are taken
    in pieces of two lengths, a tile for each.
    """
    pieces_u: tl.constexpr = (LONG_U + SIDE - USED) // (SIDE - USED + 1)
    pieces_v: tl.constexpr = (LONG_V + SIDE - USED) // (SIDE - USED + 1)
    length_u: tl.constexpr = LONG_U // pieces_u
    length_v: tl.constexpr = LONG_V // pieces_v
    longer_u: tl.constexpr = LONG_U % pieces_u  # so many of them, the first ones, are longer by one
    longer_v: tl.constexpr = LONG_V % pieces_v
    at_u = tl.arange(0, HB)[:, None] + tl.zeros((HB, SIDE), tl.int32)
    at_v = tl.arange(0, WB)[None, :] + tl.zeros((HB, WB), tl.int32)
    total = tl.zeros((HB, WB), tl.float64)
    for piece in range(pieces_u * pieces_v):
        i, j = piece // pieces_v, piece % pieces_v
        u = u0 + i * length_u + tl.minimum(i, longer_u) + tl.arange(0, SIDE)[:, None]
        v = v0 + j * length_v + tl.minimum(j, longer_v) + tl.arange(0, SIDE)[None, :]
        if CIRCULAR:
            u, v = (u + height) % height, (v + width) % width
        there = (u >= 0) & (u < height) & (v >= 0) & (v < width)
        column = tl.where(flipped, width - 1 - v, v)
        e = squares(x_ptr, row_ptr, u, v, u, column, there, channels, plane, line, step, shift, unit, C)
        e = _runs(e, at_u, i < longer_u, length_u, 0, SIDE)
        total += _runs(e, at_v, j < longer_v, length_v, 1, SIDE)
    return total


@triton.jit
def tile_sums(e, at, piece, K: tl.constexpr, AXIS: tl.constexpr, TILE: tl.constexpr):
    """Sums over [p - K + 1, p] of an axis for the places p of a tile, as far as they lie in tile `piece` of e.

    Of pieces the first begins K - 1 before the tile does: of it a place takes all from its own on, of others all up to
    some place.
    """
    COUNT: tl.constexpr = K if K < TILE else TILE
    on = neighbour_sums(tl.zeros_like(e), e, at, TILE, COUNT, 0, 1, False, AXIS, TILE)
    up_to = neighbour_sums(tl.zeros_like(e), e, at, TILE, COUNT, 0, -1, False, AXIS, TILE)
    last = tl.minimum(at + (K - 1 - piece * TILE), TILE - 1)
    return tl.where(piece == 0, on, _moved(up_to, last, TILE, False, AXIS, TILE))
