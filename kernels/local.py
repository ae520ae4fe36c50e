"""LS: posteriors of every pixel from the window around it, in float64 differences over all rows, in two launches."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from geodiff.kernels.configs import INTERPRETED
from geodiff.kernels.refine import centred
from geodiff.kernels.seen import Seen
from geodiff.kernels.windows import asked, pieced_sums, squares, window_sums

#: Lines and columns of a tile of differences: an axis of it lies in one warp, whose threads have a place each.
SIDE = 32
CHANNELS = 4  # of a program's sums, at most
PRIORS = 256  # candidates whose prior weights are added up at a time
MERGED_PIXELS, MERGED_PARTS = 32, 16
_PARTS = 256 if not INTERPRETED else 2  # shares of the candidates at most, each a program of its own
_SUMS = 2**22  # numbers in their sums
#: Lower than any logit, and finite: a difference of two infinite ones would be NaN.
LOWEST = tl.constexpr(-1e300)
#: No kernel is compiled for values of these, which go with the batch. Nor for a step of 1: lines whose bytes threads
#: load four at a time have to be dealt out anew for the sums along them, at two barriers for each channel.
ANY = ("B", "n", "candidates", "per_part", "bias_stride", "step")


@triton.jit
def _log_prior(bias_ptr, exclude_ptr, b, j, n, bias_stride, BIAS: tl.constexpr, EXCLUDE: tl.constexpr):
    """Of candidates j, of which j and n + j are one row; -inf of one that query b does not see."""
    row = tl.where(j < n, j, j - n)
    bias = tl.zeros_like(row).to(tl.float64)
    if BIAS > 0:
        at = bias_ptr + row if BIAS == 1 else bias_ptr + b * bias_stride + row
        bias = tl.load(at, mask=row < n, other=float("-inf"))
    if EXCLUDE:
        bias = tl.where(row == tl.load(exclude_ptr + b), float("-inf"), bias)
    return tl.where(row < n, bias, float("-inf"))


@triton.jit
def _store(out, pixels, s0, s1, s2, s3, first, second, third, fourth, G: tl.constexpr):
    """The sums of G channels, a plane of pixels each, where the image has them."""
    tl.store(out, s0, mask=first)
    if G > 1:
        tl.store(out + pixels, s1, mask=second)
    if G > 2:
        tl.store(out + 2 * pixels, s2, mask=third)
    if G > 3:
        tl.store(out + 3 * pixels, s3, mask=fourth)


@triton.jit(do_not_specialize=ANY)
def local_kernel(
    x_ptr, rows_ptr, bias_ptr, exclude_ptr, sigma_ptr, sums_ptr, mass_ptr,
    B, n, candidates, d, channels, height, width, plane, line, step, per_part, bias_stride, shift, unit,
    HALF_U: tl.constexpr, HALF_V: tl.constexpr, CIRCULAR: tl.constexpr, MIRRORED: tl.constexpr,
    DETAILS: tl.constexpr, BIAS: tl.constexpr, EXCLUDE: tl.constexpr, G: tl.constexpr, C: tl.constexpr,
    HB: tl.constexpr, WB: tl.constexpr, SIDE: tl.constexpr, USED: tl.constexpr, WHOLE: tl.constexpr,
    PRIORS: tl.constexpr,
):  # fmt: skip
    """Sums over a part of the candidates for a tile of the image and G channels, of one query, by an online softmax.

    sums [parts, B, 2 + channels, height width]: of the logits l of a pixel the largest, m, and sums of w = exp(l - m)
    and w v; DETAILS: [.., 4 + 2 channels, ..], behind them w^2, the candidate of m, and w (v - x)^2. And mass
    [parts, B]: the prior weight of the part. WHOLE: the image is one tile [HB, WB]; else one takes USED pixels each
    way. C: channels, where G is all of them, or 0. The number (c, u, v) of an image lies at c plane + u line + v step
    of its row.
    """
    b, part = (tl.program_id(0) % B).to(tl.int64), tl.program_id(1).to(tl.int64)
    piece = tl.program_id(0) // B
    groups, across = (channels + G - 1) // G, (width + USED - 1) // USED
    tile, c0 = piece // groups, piece % groups * G
    u0, v0 = tile // across * USED, tile % across * USED
    first, last = part * per_part, tl.minimum(candidates, (part + 1) * per_part)
    if piece == 0:
        mass = tl.zeros((PRIORS,), tl.float64)
        for j in range(first, last, PRIORS):
            some = j + tl.arange(0, PRIORS)
            bias = _log_prior(bias_ptr, exclude_ptr, b, some, n, bias_stride, BIAS, EXCLUDE)
            mass += tl.where(some < last, tl.exp(bias), 0.0)
        tl.store(mass_ptr + part * B + b, tl.sum(mass, 0))
    x_ptr += b * d
    u, v = u0 + tl.arange(0, HB)[:, None], v0 + tl.arange(0, WB)[None, :]
    all_u, all_v = u + tl.zeros_like(v), tl.zeros_like(u) + v
    there = (u < tl.minimum(height, u0 + USED)) & (v < tl.minimum(width, v0 + USED))
    left = channels - c0 + tl.zeros_like(u)
    second, third, fourth = there & (left > 1), there & (left > 2), there & (left > 3)
    if DETAILS or (WHOLE and C > 0):  # elsewhere x is loaded again for each row
        at = u * line + v * step + c0 * plane
        x0 = asked(x_ptr, at, there, shift, unit)
        x1, x2, x3 = x0, x0, x0
        if G > 1:
            x1 = asked(x_ptr, at + plane, second, shift, unit)
        if G > 2:
            x2 = asked(x_ptr, at + 2 * plane, third, shift, unit)
        if G > 3:
            x3 = asked(x_ptr, at + 3 * plane, fourth, shift, unit)
    sigma = tl.load(sigma_ptr + b) * unit
    scale = 0.5 / (sigma * sigma)
    best = tl.full((HB, WB), LOWEST, tl.float64)
    total = tl.zeros((HB, WB), tl.float64)
    a0, a1, a2, a3, total_2, q0, q1, q2, q3 = total, total, total, total, total, total, total, total, total
    nearest = tl.zeros((HB, WB), tl.int64)
    for j in range(first, last):
        bias = _log_prior(bias_ptr, exclude_ptr, b, j, n, bias_stride, BIAS, EXCLUDE)
        if bias > float("-inf"):
            row_ptr = rows_ptr + tl.where(j < n, j, j - n) * d
            column = tl.where(j < n, v, width - 1 - v) if MIRRORED else v
            at_row = row_ptr + (u * line + column * step + c0 * plane)
            y0 = centred(tl.load(at_row, mask=there, other=0))
            y1, y2, y3 = y0, y0, y0
            if G > 1:
                y1 = centred(tl.load(at_row + plane, mask=second, other=0))
            if G > 2:
                y2 = centred(tl.load(at_row + 2 * plane, mask=third, other=0))
            if G > 3:
                y3 = centred(tl.load(at_row + 3 * plane, mask=fourth, other=0))
            if WHOLE:
                if C > 0:
                    e = (x0 - y0) * (x0 - y0)
                    if G > 1:
                        e += (x1 - y1) * (x1 - y1)
                    if G > 2:
                        e += (x2 - y2) * (x2 - y2)
                    if G > 3:
                        e += (x3 - y3) * (x3 - y3)
                    e = tl.where(there, e, 0.0)
                else:
                    e = squares(x_ptr, row_ptr, u, v, column, there, channels, plane, line, step, shift, unit, C)
                # Along columns first: what follows is then laid out as rows are read.
                e = window_sums(e, all_u, height, HALF_U, CIRCULAR, 0, HB)
                e = window_sums(e, all_v, width, HALF_V, CIRCULAR, 1, WB)
            else:
                e = pieced_sums(
                    x_ptr, row_ptr, j >= n, u0, v0, channels, height, width, plane, line, step, shift, unit,
                    HALF_U, HALF_V, CIRCULAR, C, HB, WB, SIDE, USED,
                )  # fmt: skip
            logit = bias - scale * e
            higher = logit > best
            fade = tl.exp(-tl.abs(logit - best))  # of the sums so far, or else of this one
            kept, weight = tl.where(higher, fade, 1.0), tl.where(higher, 1.0, fade)
            best = tl.where(higher, logit, best)
            total = total * kept + weight
            a0 = a0 * kept + weight * y0
            if G > 1:
                a1 = a1 * kept + weight * y1
            if G > 2:
                a2 = a2 * kept + weight * y2
            if G > 3:
                a3 = a3 * kept + weight * y3
            if DETAILS:
                nearest = tl.where(higher, j, nearest)
                total_2 = total_2 * kept * kept + weight * weight
                q0 = q0 * kept + weight * (y0 - x0) * (y0 - x0)
                if G > 1:
                    q1 = q1 * kept + weight * (y1 - x1) * (y1 - x1)
                if G > 2:
                    q2 = q2 * kept + weight * (y2 - x2) * (y2 - x2)
                if G > 3:
                    q3 = q3 * kept + weight * (y3 - x3) * (y3 - x3)
    pixels = height * width
    planes = 4 + 2 * channels if DETAILS else 2 + channels
    out = sums_ptr + ((part * B + b) * planes * pixels + u * width + v)
    if c0 == 0:
        tl.store(out, best, mask=there)
        tl.store(out + pixels, total, mask=there)
    out += (2 + c0) * pixels
    _store(out, pixels, a0, a1, a2, a3, there, second, third, fourth, G)
    if DETAILS:
        out += channels * pixels
        if c0 == 0:
            tl.store(out, total_2, mask=there)
            tl.store(out + pixels, nearest.to(tl.float64), mask=there)
        out += 2 * pixels
        _store(out, pixels, q0, q1, q2, q3, there, second, third, fourth, G)


@triton.jit(do_not_specialize=["B", "n", "parts", "first", "of"])
def local_merge_kernel(
    sums_ptr, mass_ptr, x_ptr, mean_ptr, log_mass_ptr, variance_ptr, ess_ptr, nearest_ptr,
    B, n, parts, first, of, d, channels, height, width, plane, line, step, shift, unit,
    DETAILS: tl.constexpr, SB: tl.constexpr, PB: tl.constexpr,
):  # fmt: skip
    """What `LocalAnswer` holds, of the parts of `local_kernel`: PB pixels of one channel of one query per program.

    Candidates are rows `first` and on of `of`, and behind them their mirror images, rows `of` + `first` and on.
    """
    c, b = tl.program_id(1), tl.program_id(2).to(tl.int64)
    p, s = tl.program_id(0) * PB + tl.arange(0, PB), tl.arange(0, SB)
    pixels = height * width
    planes = 4 + 2 * channels if DETAILS else 2 + channels
    here = p[None, :] < pixels
    top = tl.full((SB, PB), LOWEST, tl.float64)
    for part in range(0, parts, SB):
        at = sums_ptr + ((part + s).to(tl.int64)[:, None] * B + b) * planes * pixels + p[None, :]
        top = tl.maximum(top, tl.load(at, mask=here & (part + s[:, None] < parts), other=LOWEST))
    best = tl.max(top, 0)
    total = tl.zeros((SB, PB), tl.float64)
    sum_, total_2, sum_2 = total, total, total
    mass = tl.zeros((SB,), tl.float64)
    nearest = tl.full((SB, PB), 2.0**53, tl.float64)
    for part in range(0, parts, SB):
        there = here & (part + s[:, None] < parts)
        at = sums_ptr + ((part + s).to(tl.int64)[:, None] * B + b) * planes * pixels + p[None, :]
        highest = tl.load(at, mask=there, other=LOWEST)
        weight = tl.where(there, tl.exp(highest - best[None, :]), 0.0)
        total += weight * tl.load(at + pixels, mask=there, other=0.0)
        sum_ += weight * tl.load(at + (2 + c) * pixels, mask=there, other=0.0)
        mass += tl.load(mass_ptr + (part + s).to(tl.int64) * B + b, mask=part + s < parts, other=0.0)
        if DETAILS:
            at += (2 + channels) * pixels
            total_2 += weight * weight * tl.load(at, mask=there, other=0.0)
            candidate = tl.load(at + pixels, mask=there & (highest == best[None, :]), other=2.0**53)
            nearest = tl.minimum(nearest, candidate)
            sum_2 += weight * tl.load(at + (2 + c) * pixels, mask=there, other=0.0)
    here = p < pixels
    all_ = tl.where(here, tl.sum(total, 0), 1.0)
    r = tl.sum(sum_, 0) / all_
    at = b * d + c * plane + p // width * line + p % width * step
    tl.store(mean_ptr + at, (r + shift) / unit, mask=here)
    if DETAILS:
        off = r - asked(x_ptr, at, here, shift, unit)
        squared = tl.sum(sum_2, 0) / all_ - off * off
        tl.store(variance_ptr + at, tl.maximum(squared, 0.0) / unit / unit, mask=here)
    if c == 0:
        out = b * pixels + p
        tl.store(log_mass_ptr + out, best + tl.log(all_) - tl.log(tl.sum(mass, 0)), mask=here)
        if DETAILS:
            tl.store(ess_ptr + out, all_ * all_ / tl.where(here, tl.sum(total_2, 0), 1.0), mask=here)
            number = tl.min(nearest, 0).to(tl.int64)
            tl.store(nearest_ptr + out, tl.where(number < n, number, number - n + of) + first, mask=here)


@dataclass(frozen=True)
class Images:
    """Where the number (c, u, v) of an image lies in its row: at c strides[0] + u strides[1] + v strides[2].

    shape    C, H, W
    half     a window reaches so many pixels to each side
    circular whether it goes on at the other end of the image, rather than being clipped; then 2 half + 1 <= H, W
    """

    shape: tuple[int, int, int]
    strides: tuple[int, int, int]
    half: int
    circular: bool


class Tile(NamedTuple):
    """[HB, WB] pixels of a program, USED each way, or WHOLE images; sums of G channels; and warps."""

    HB: int
    WB: int
    USED: int
    WHOLE: bool
    G: int
    warps: int


def tile_of(images: Images, *, details: bool) -> Tile:
    """An image of up to SIDE lines and columns as a whole, where a thread has registers for its sums.

    Else a tile of SIDE less what windows reach beyond the pixels that are of use, where these are most of it; or half
    of SIDE, under which windows of up to half of it fit in one piece.
    """
    channels, height, width = images.shape
    group = min(CHANNELS, channels)
    if max(height, width) <= SIDE and not details:
        lines, columns = triton.next_power_of_2(height), triton.next_power_of_2(width)
        return Tile(lines, columns, SIDE, True, group, max(1, lines * columns // 64))
    used = SIDE - 2 * images.half
    if details or used < 3 * SIDE // 4:
        return Tile(SIDE // 2, SIDE // 2, SIDE // 2, False, group, max(1, SIDE * SIDE // 128))
    return Tile(SIDE, SIDE, used, False, group, max(1, SIDE * SIDE // 64))


class Candidates(NamedTuple):
    """rows [n, d] as stored, numbers `first` and on of `of`; `mirrored` has the mirror images as candidates, too."""

    rows: Tensor
    seen: Seen
    first: int
    of: int
    mirrored: bool


class Found(NamedTuple):
    """mean, variance [B, d] and log_mass, ess, nearest [B, H, W], as `geodiff.reference.local.Posteriors` has them."""

    mean: Tensor
    log_mass: Tensor
    variance: Tensor | None = None
    ess: Tensor | None = None
    nearest: Tensor | None = None


def local(x: Tensor, sigma: Tensor, candidates: Candidates, images: Images, *, details: bool) -> Found:
    """w_i(p) = softmax_i(log pi_i - q_i(p) / 2 sigma^2), r[c, p] = sum_i w_i(p) x_i[c, p] of queries x [B, d].

    x is contiguous, float32 or float64; sigma [B] float64. variance, ess and nearest where `details` asks for them.
    """
    (batch, d), (channels, height, width), rows = x.shape, images.shape, candidates.rows
    tile, seen, pixels = tile_of(images, details=details), candidates.seen, height * width
    planes = 4 + 2 * channels if details else 2 + channels
    count = len(rows) * (2 if candidates.mirrored else 1)
    per_part = triton.cdiv(count, max(1, min(_PARTS, _SUMS // (batch * planes * pixels))))
    parts = triton.cdiv(count, per_part)
    new = partial(torch.empty, dtype=torch.float64, device=rows.device)
    sums, mass = new(parts, batch, planes, pixels), new(parts, batch)
    shift, unit = (0.5, 127.5) if rows.dtype == torch.uint8 else (0.0, 1.0)
    tiles = triton.cdiv(height, tile.USED) * triton.cdiv(width, tile.USED) * triton.cdiv(channels, tile.G)
    local_kernel[(batch * tiles, parts)](
        x, rows, seen.bias_or(sigma), seen.exclude_or(rows), sigma, sums, mass,
        batch, len(rows), count, d, *images.shape, *images.strides, per_part, seen.stride, shift, unit,
        HALF_U=min(images.half, height - 1), HALF_V=min(images.half, width - 1), CIRCULAR=images.circular,
        MIRRORED=candidates.mirrored, DETAILS=details, BIAS=seen.kind, EXCLUDE=seen.exclude is not None,
        G=tile.G, C=channels if channels == tile.G else 0, HB=tile.HB, WB=tile.WB, SIDE=SIDE, USED=tile.USED,
        WHOLE=tile.WHOLE, PRIORS=PRIORS, num_warps=tile.warps, enable_fp_fusion=True,
    )  # fmt: skip
    found = Found(new(batch, d), new(batch, height, width))
    if details:
        nearest = torch.empty(batch, height, width, dtype=torch.int64, device=rows.device)
        found = Found(*found[:2], new(batch, d), new(batch, height, width), nearest)
    unused = found.mean
    local_merge_kernel[(triton.cdiv(pixels, MERGED_PIXELS), channels, batch)](
        sums, mass, x, *(unused if out is None else out for out in found),
        batch, len(rows), parts, candidates.first, candidates.of, d, *images.shape, *images.strides, shift, unit,
        DETAILS=details, SB=MERGED_PARTS, PB=MERGED_PIXELS, enable_fp_fusion=True,
    )  # fmt: skip
    return found
