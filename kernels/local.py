"""LS and ELS: posteriors of every pixel from the window around it, in float64 differences over all rows."""

import math
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from geodiff.kernels.images import ANY, PRIORS, Candidates, Found, Images, Tile, part_tile, whole_tile
from geodiff.kernels.programs import channels_and_tile, further, query_and_rows, scale_of
from geodiff.kernels.seen import log_prior, store_prior_mass
from geodiff.kernels.values import LOWEST, asked, asked_values, raised, row_values, squares_of, store_values
from geodiff.kernels.windows import displaced, pieced_sums, squares, window_sums

MERGED_PIXELS, MERGED_PARTS = 32, 16


@triton.jit(do_not_specialize=ANY)
def local_kernel(
    x_ptr, rows_ptr, bias_ptr, exclude_ptr, sigma_ptr, sums_ptr, mass_ptr,
    B, n, candidates, d, channels, height, width, plane, line, step, per_part, bias_stride, shift, unit,
    HALF_U: tl.constexpr, HALF_V: tl.constexpr, CIRCULAR: tl.constexpr, MIRRORED: tl.constexpr,
    DETAILS: tl.constexpr, BIAS: tl.constexpr, EXCLUDE: tl.constexpr, G: tl.constexpr, C: tl.constexpr,
    HB: tl.constexpr, WB: tl.constexpr, SIDE: tl.constexpr, USED: tl.constexpr, WHOLE: tl.constexpr,
    PRIORS: tl.constexpr, RULE: tl.constexpr, SHIFTS_U: tl.constexpr, SHIFTS_V: tl.constexpr,
):  # fmt: skip
    """Sums over a part of the candidates for a tile of the image and G channels, of one query, by an online softmax.

    sums [parts, B, 2 + channels, height width]: of the logits l of a pixel the largest, m, and sums of w = exp(l - m)
    and w v; DETAILS: [.., 4 + 2 channels, ..], behind them w^2, the candidate of m, and w (v - x)^2. And mass
    [parts, B]: the prior weight of the part. WHOLE: the image is one tile [HB, WB]; else one takes USED pixels each
    way. C: channels, where G is all of them, or 0. The number (c, u, v) of an image lies at c plane + u line + v step
    of its row. RULE: 0, or that of ELS, which has SHIFTS_U SHIFTS_V places of an image as candidates, of WHOLE ones.
    """
    b, part, first, last = query_and_rows(B, candidates, per_part)
    piece = tl.program_id(0) // B
    c0, u0, v0 = channels_and_tile(piece, channels, width, G, USED)
    if piece == 0:
        mass_ptr += part * B + b
        store_prior_mass(mass_ptr, bias_ptr, exclude_ptr, b, first, last, n, bias_stride, BIAS, EXCLUDE, PRIORS)
    x_ptr += b * d
    u, v = u0 + tl.arange(0, HB)[:, None], v0 + tl.arange(0, WB)[None, :]
    all_u, all_v = u + tl.zeros_like(v), tl.zeros_like(u) + v
    there = (u < tl.minimum(height, u0 + USED)) & (v < tl.minimum(width, v0 + USED))
    second, third, fourth = further(there, channels - c0, C)
    if DETAILS or (WHOLE and C > 0):  # elsewhere x is loaded again for each row
        at = u * line + v * step + c0 * plane
        x0, x1, x2, x3 = asked_values(x_ptr, at, plane, there, second, third, fourth, shift, unit, G)
    scale = scale_of(sigma_ptr, b, unit)
    best = tl.full((HB, WB), LOWEST, tl.float64)
    total = tl.zeros((HB, WB), tl.float64)
    a0, a1, a2, a3, total_2, q0, q1, q2, q3 = total, total, total, total, total, total, total, total, total
    nearest = tl.zeros((HB, WB), tl.int64)
    for j in range(first, last):
        bias = log_prior(bias_ptr, exclude_ptr, b, j, n, bias_stride, BIAS, EXCLUDE)
        if bias > float("-inf"):
            row_ptr = rows_ptr + tl.where(j < n, j, j - n) * d
            for place in range(SHIFTS_U * SHIFTS_V):
                row_u, row_v, held, second_held, third_held, fourth_held = u, v, there, second, third, fourth
                if RULE > 0:
                    by_u, by_v = place // SHIFTS_V, place % SHIFTS_V
                    if RULE == 3:
                        by_u, by_v = by_u - SHIFTS_U // 2, by_v - SHIFTS_V // 2
                    row_u, alike_u = displaced(u, by_u, height, HALF_U, RULE)
                    row_v, alike_v = displaced(v, by_v, width, HALF_V, RULE)
                if RULE == 3:
                    held = there & (row_u >= 0) & (row_u < height) & (row_v >= 0) & (row_v < width)
                    second_held, third_held, fourth_held = further(held, channels - c0, C)
                column = tl.where(j < n, row_v, width - 1 - row_v) if MIRRORED else row_v
                at_row = row_u * line + column * step + c0 * plane
                if not WHOLE or C > 0 or RULE > 1:
                    y0, y1, y2, y3 = row_values(row_ptr, at_row, plane, held, second_held, third_held, fourth_held, G)
                if WHOLE:
                    if C > 0:
                        e = squares_of(x0, x1, x2, x3, y0, y1, y2, y3, held, G)
                    else:
                        e = squares(
                            x_ptr, row_ptr, u, v, row_u, column, held, channels, plane, line, step, shift, unit, C
                        )
                    # Along columns first: what follows is then laid out as rows are read.
                    e = window_sums(e, all_u, height, HALF_U, CIRCULAR, 0, HB)
                    e = window_sums(e, all_v, width, HALF_V, CIRCULAR, 1, WB)
                else:
                    e = pieced_sums(
                        x_ptr, row_ptr, j >= n, u0 - HALF_U, v0 - HALF_V, channels, height, width, plane, line, step,
                        shift, unit, 2 * HALF_U + 1, 2 * HALF_V + 1, CIRCULAR, C, HB, WB, SIDE, USED,
                    )  # fmt: skip
                logit = bias - scale * e
                if RULE > 1:
                    logit = tl.where(alike_u & alike_v, logit, float("-inf"))
                if WHOLE and C == 0 and RULE < 2:  # not before, since windows want the registers
                    y0, y1, y2, y3 = row_values(row_ptr, at_row, plane, held, second_held, third_held, fourth_held, G)
                best, higher, kept, weight = raised(best, logit)
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
    store_values(out, pixels, a0, a1, a2, a3, there, second, third, fourth, G)
    if DETAILS:
        out += channels * pixels
        if c0 == 0:
            tl.store(out, total_2, mask=there)
            tl.store(out + pixels, nearest.to(tl.float64), mask=there)
        out += 2 * pixels
        store_values(out, pixels, q0, q1, q2, q3, there, second, third, fourth, G)


@triton.jit(do_not_specialize=["B", "n", "parts", "first", "of"])
def local_merge_kernel(
    sums_ptr, mass_ptr, x_ptr, mean_ptr, log_mass_ptr, variance_ptr, ess_ptr, nearest_ptr,
    B, n, parts, first, of, d, channels, height, width, plane, line, step, shift, unit,
    SUMS: tl.constexpr, DETAILS: tl.constexpr, SB: tl.constexpr, PB: tl.constexpr,
):  # fmt: skip
    """What `LocalAnswer` holds, of the parts of `local_kernel`: PB pixels of one channel of one query per program.

    Without SUMS, of posteriors with no channels: instead of a mean [B, 2, height width] of the largest logit m of each
    and 1 / sum exp(l - m). Candidates are rows `first` and on of `of`, and behind them their mirror images, rows `of` +
    `first` and on.
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
        if SUMS:
            sum_ += weight * tl.load(at + (2 + c) * pixels, mask=there, other=0.0)
        mass += tl.load(mass_ptr + (part + s).to(tl.int64) * B + b, mask=part + s < parts, other=0.0)
        if DETAILS:
            at += (2 + channels) * pixels
            total_2 += weight * weight * tl.load(at, mask=there, other=0.0)
            candidate = tl.load(at + pixels, mask=there & (highest == best[None, :]), other=2.0**53)
            nearest = tl.minimum(nearest, candidate)
            if SUMS:
                sum_2 += weight * tl.load(at + (2 + c) * pixels, mask=there, other=0.0)
    here = p < pixels
    all_ = tl.where(here, tl.sum(total, 0), 1.0)
    if SUMS:
        r = tl.sum(sum_, 0) / all_
        at = b * d + c * plane + p // width * line + p % width * step
        tl.store(mean_ptr + at, (r + shift) / unit, mask=here)
        if DETAILS:
            off = r - asked(x_ptr, at, here, shift, unit)
            squared = tl.sum(sum_2, 0) / all_ - off * off
            tl.store(variance_ptr + at, tl.maximum(squared, 0.0) / unit / unit, mask=here)
    else:
        tl.store(mean_ptr + 2 * b * pixels + p, best, mask=here)
        tl.store(mean_ptr + (2 * b + 1) * pixels + p, 1.0 / all_, mask=here)
    if c == 0:
        out = b * pixels + p
        tl.store(log_mass_ptr + out, best + tl.log(all_) - tl.log(tl.sum(mass, 0)), mask=here)
        if DETAILS:
            tl.store(ess_ptr + out, all_ * all_ / tl.where(here, tl.sum(total_2, 0), 1.0), mask=here)
            number = tl.min(nearest, 0).to(tl.int64)
            tl.store(nearest_ptr + out, tl.where(number < n, number, number - n + of) + first, mask=here)


def tile_of(images: Images, *, details: bool) -> Tile:
    """An image of up to SIDE lines and columns as a whole, where a thread has registers for its sums."""
    whole = None if details else whole_tile(images)
    return whole or part_tile(images, sum(images.reach), math.inf if details else 3 / 4)


def registers(tile: Tile, images: Images) -> dict[str, int]:
    """How `local_kernel` is launched."""
    return tile.registers if images.rule and images.shape[0] > tile.G and tile.warps < 16 else {}


def local(x: Tensor, sigma: Tensor, candidates: Candidates, images: Images, *, details: bool) -> Found:
    """w_i(p) = softmax_i(log pi_i - q_i(p) / 2 sigma^2), r[c, p] = sum_i w_i(p) x_i[c, p] of queries x [B, d].

    By a rule, of candidates (i, s): sums over both, of x_i[c, s]; then images fit into a tile and there are no details.
    x is contiguous, float32 or float64; sigma [B] float64. variance, ess and nearest where `details` asks for them.
    """
    (batch, d), (channels, height, width), rows = x.shape, images.shape, candidates.rows
    tile, seen, pixels, half = tile_of(images, details=details), candidates.seen, height * width, images.reach[0]
    planes = 4 + 2 * channels if details else 2 + channels
    per_part = candidates.per_part(batch * planes * pixels)
    parts = triton.cdiv(candidates.all, per_part)
    new = partial(torch.empty, dtype=torch.float64, device=rows.device)
    sums, mass = new(parts, batch, planes, pixels), new(parts, batch)
    tiles = tile.over(images) * triton.cdiv(channels, tile.G)
    local_kernel[(batch * tiles, parts)](
        x, rows, seen.bias_or(sigma), seen.exclude_or(rows), sigma, sums, mass,
        batch, len(rows), candidates.all, d, *images.shape, *images.strides, per_part, seen.stride,
        *candidates.units, HALF_U=min(half, height - 1), HALF_V=min(half, width - 1), CIRCULAR=images.circular,
        MIRRORED=candidates.mirrored, DETAILS=details, BIAS=seen.kind, EXCLUDE=seen.exclude is not None,
        G=tile.G, C=channels if channels == tile.G else 0, HB=tile.HB, WB=tile.WB, SIDE=tile.SIDE, USED=tile.USED,
        WHOLE=tile.WHOLE, PRIORS=PRIORS, RULE=images.rule, SHIFTS_U=images.shifts[0], SHIFTS_V=images.shifts[1],
        num_warps=tile.warps, enable_fp_fusion=True, **registers(tile, images),
    )  # fmt: skip
    return merged(sums, mass, x, candidates, images, details=details)


def merged(
    sums: Tensor, mass: Tensor, x: Tensor, candidates: Candidates, images: Images, *, details: bool, summed: bool = True
) -> Found:
    """What parts [parts, B, planes, pixels] make together; `summed`: the mean, else what weights are relative to."""
    (parts, batch, _, pixels), (channels, height, width) = sums.shape, images.shape
    d = x.shape[1]
    new = partial(torch.empty, dtype=torch.float64, device=sums.device)
    found = Found(new(batch, d) if summed else new(batch, 2, pixels), new(batch, height, width))
    if details:
        nearest = torch.empty(batch, height, width, dtype=torch.int64, device=sums.device)
        found = Found(*found[:2], new(batch, d) if summed else None, new(batch, height, width), nearest)
    unused = found.mean
    local_merge_kernel[(triton.cdiv(pixels, MERGED_PIXELS), channels if summed else 1, batch)](
        sums, mass, x, *(unused if out is None else out for out in found),
        batch, len(candidates.rows), parts, candidates.first, candidates.of, d, channels if summed else 0,
        height, width, *images.strides, *candidates.units,
        SUMS=summed, DETAILS=details, SB=MERGED_PARTS, PB=MERGED_PIXELS, enable_fp_fusion=True,
    )  # fmt: skip
    return found
