"""PSPC-Square: posteriors of all crops that fit, then their weights laid over pixels, in float64, in four launches.

The weights of a pixel are of several posteriors, so that they must be known before anything is summed: one pass over
the rows finds the largest logit of each crop and its mass, another makes the logits again. Nothing of rows times pixels
is kept between them. Details are of every crop and pixel in it: `crops_apart_kernel` takes the place of the second
pass, a program for each place in the crop.
"""

from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from geodiff.kernels.images import ANY, CHANNELS, PRIORS, Candidates, Found, Images, Tile, part_tile, whole_tile
from geodiff.kernels.local import MERGED_PARTS, MERGED_PIXELS, merged
from geodiff.kernels.programs import channels_and_tile, further, query_and_rows, scale_of
from geodiff.kernels.seen import log_prior, store_prior_mass
from geodiff.kernels.values import LOWEST, asked_values, raised, row_values, squares_of, store_values
from geodiff.kernels.windows import neighbour_sums, pieced_sums, squares, tile_sums


@triton.jit
def _sums_in_tile(e, u, v, height, width, K: tl.constexpr, SIGN: tl.constexpr, HB: tl.constexpr, WB: tl.constexpr):
    """Sums over K x K places of the tile that lie in direction SIGN of each, itself among them."""
    all_u, all_v = u + tl.zeros_like(v), tl.zeros_like(u) + v
    e = neighbour_sums(tl.zeros_like(e), e, all_u, height, K, 0, SIGN, False, 0, HB)
    return neighbour_sums(tl.zeros_like(e), e, all_v, width, K, 0, SIGN, False, 1, WB)


@triton.jit
def _distances(
    x_ptr, row_ptr, flipped, u0, v0, channels, height, width, plane, line, step, shift, unit,
    K: tl.constexpr, C: tl.constexpr, HB: tl.constexpr, WB: tl.constexpr, SIDE: tl.constexpr, USED: tl.constexpr,
    ONE: tl.constexpr,
):  # fmt: skip
    """q of the crops that begin at the pixels [HB, WB] from (u0, v0) on, USED each way; ONE: they lie in that tile."""
    if ONE:
        u, v = u0 + tl.arange(0, HB)[:, None], v0 + tl.arange(0, WB)[None, :]
        there, column = (u < height) & (v < width), tl.where(flipped, width - 1 - v, v)
        e = squares(x_ptr, row_ptr, u, v, u, column, there, channels, plane, line, step, shift, unit, C)
        return _sums_in_tile(e, u - u0, v - v0, height, width, K, 1, HB, WB)
    else:
        return pieced_sums(
            x_ptr, row_ptr, flipped, u0, v0, channels, height, width, plane, line, step, shift, unit,
            K, K, False, C, HB, WB, SIDE, USED,
        )  # fmt: skip


@triton.jit(do_not_specialize=ANY)
def crops_mass_kernel(
    x_ptr, rows_ptr, bias_ptr, exclude_ptr, sigma_ptr, sums_ptr, mass_ptr,
    B, n, candidates, d, channels, height, width, plane, line, step, per_part, bias_stride, shift, unit,
    K: tl.constexpr, MIRRORED: tl.constexpr, DETAILS: tl.constexpr, BIAS: tl.constexpr, EXCLUDE: tl.constexpr,
    G: tl.constexpr, C: tl.constexpr, HB: tl.constexpr, WB: tl.constexpr, SIDE: tl.constexpr, USED: tl.constexpr,
    WHOLE: tl.constexpr, PRIORS: tl.constexpr,
):  # fmt: skip
    """What `local_kernel` finds without channels: sums [parts, B, 2 or 4, crops] of the crops that begin in a tile."""
    ONE: tl.constexpr = WHOLE or HB == SIDE  # crops that begin at pixels of use lie in the tile, too
    b, part, first, last = query_and_rows(B, candidates, per_part)
    piece = tl.program_id(0) // B
    _, u0, v0 = channels_and_tile(piece, 1, width - K + 1, 1, USED)
    if piece == 0:
        mass_ptr += part * B + b
        store_prior_mass(mass_ptr, bias_ptr, exclude_ptr, b, first, last, n, bias_stride, BIAS, EXCLUDE, PRIORS)
    x_ptr += b * d
    u, v = u0 + tl.arange(0, HB)[:, None], v0 + tl.arange(0, WB)[None, :]
    there = (u < height) & (v < width)
    begun = (u < tl.minimum(height - K + 1, u0 + USED)) & (v < tl.minimum(width - K + 1, v0 + USED))
    HELD: tl.constexpr = ONE and C > 0 and not DETAILS  # x: with more sums there are no registers for it
    if HELD:
        at = u * line + v * step
        x0, x1, x2, x3 = asked_values(x_ptr, at, plane, there, there, there, there, shift, unit, G)
    scale = scale_of(sigma_ptr, b, unit)
    best = tl.full((HB, WB), LOWEST, tl.float64)
    total = tl.zeros((HB, WB), tl.float64)
    total_2 = total
    nearest = tl.zeros((HB, WB), tl.int32)  # of int64 two registers
    for j in range(first, last):
        bias = log_prior(bias_ptr, exclude_ptr, b, j, n, bias_stride, BIAS, EXCLUDE)
        if bias > float("-inf"):
            row_ptr = rows_ptr + tl.where(j < n, j, j - n) * d
            if HELD:
                column = tl.where(j < n, v, width - 1 - v) if MIRRORED else v
                at_row = u * line + column * step
                y0, y1, y2, y3 = row_values(row_ptr, at_row, plane, there, there, there, there, G)
                e = squares_of(x0, x1, x2, x3, y0, y1, y2, y3, there, G)
                e = _sums_in_tile(e, u - u0, v - v0, height, width, K, 1, HB, WB)
            else:
                e = _distances(
                    x_ptr, row_ptr, MIRRORED and j >= n, u0, v0, channels, height, width, plane, line, step, shift,
                    unit, K, C, HB, WB, SIDE, USED, ONE,
                )  # fmt: skip
            best, higher, kept, weight = raised(best, bias - scale * e)
            total = total * kept + weight
            if DETAILS:
                nearest = tl.where(higher, j, nearest).to(tl.int32)
                total_2 = total_2 * kept * kept + weight * weight
    crops = (height - K + 1) * (width - K + 1)
    planes: tl.constexpr = 4 if DETAILS else 2
    out = sums_ptr + ((part * B + b) * planes * crops + u * (width - K + 1) + v)
    tl.store(out, best, mask=begun)
    tl.store(out + crops, total, mask=begun)
    if DETAILS:
        tl.store(out + 2 * crops, total_2, mask=begun)
        tl.store(out + 3 * crops, nearest.to(tl.float64), mask=begun)


@triton.jit(do_not_specialize=ANY)
def crops_sum_kernel(
    x_ptr, rows_ptr, bias_ptr, exclude_ptr, sigma_ptr, norm_ptr, sums_ptr,
    B, n, candidates, d, channels, height, width, plane, line, step, per_part, bias_stride, shift, unit,
    K: tl.constexpr, MIRRORED: tl.constexpr, BIAS: tl.constexpr, EXCLUDE: tl.constexpr,
    G: tl.constexpr, C: tl.constexpr, HB: tl.constexpr, WB: tl.constexpr, SIDE: tl.constexpr, USED: tl.constexpr,
    WHOLE: tl.constexpr,
):  # fmt: skip
    """sums [parts, B, channels, height width]: of v times the weights of all crops that hold the pixel.

    norm [B, 2, crops] is what `local_merge_kernel` makes of the sums of `crops_mass_kernel`: with the same logits,
    which are made by the same operations in the same order, weights of a crop add up to 1.
    """
    ONE: tl.constexpr = WHOLE or HB == SIDE
    BEFORE: tl.constexpr = K - 1 if ONE and not WHOLE else 0  # of the pixels of use, from where crops reach them
    b, part, first, last = query_and_rows(B, candidates, per_part)
    c0, u0, v0 = channels_and_tile(tl.program_id(0) // B, channels, width, G, USED)
    x_ptr += b * d
    tile_u, tile_v = tl.arange(0, HB)[:, None], tl.arange(0, WB)[None, :]
    u, v = u0 - BEFORE + tile_u, v0 - BEFORE + tile_v
    there = (u >= 0) & (u < height) & (v >= 0) & (v < width)
    second, third, fourth = further(there, channels - c0, C)
    scale = scale_of(sigma_ptr, b, unit)
    down, beside = height - K + 1, width - K + 1
    crops = down * beside
    norm_ptr += 2 * b * crops
    if ONE:
        x0, x1, x2, x3 = asked_values(
            x_ptr, u * line + v * step + c0 * plane, plane, there, second, third, fourth, shift, unit, G
        )
        begun = there & (u < down) & (v < beside)
        if not WHOLE:
            begun = begun & (tile_u <= HB - K) & (tile_v <= WB - K)
        best = tl.load(norm_ptr + u * beside + v, mask=begun, other=0.0)
        share = tl.load(norm_ptr + crops + u * beside + v, mask=begun, other=0.0)
    a0 = tl.zeros((HB, WB), tl.float64)
    a1, a2, a3 = a0, a0, a0
    for j in range(first, last):
        bias = log_prior(bias_ptr, exclude_ptr, b, j, n, bias_stride, BIAS, EXCLUDE)
        if bias > float("-inf"):
            row_ptr = rows_ptr + tl.where(j < n, j, j - n) * d
            column = tl.where(j < n, v, width - 1 - v) if MIRRORED else v
            if ONE:
                at_row = u * line + column * step + c0 * plane
                y0, y1, y2, y3 = row_values(row_ptr, at_row, plane, there, second, third, fourth, G)
                if C > 0:
                    e = squares_of(x0, x1, x2, x3, y0, y1, y2, y3, there, G)
                else:
                    e = squares(x_ptr, row_ptr, u, v, u, column, there, channels, plane, line, step, shift, unit, C)
                e = _sums_in_tile(e, tile_u, tile_v, height, width, K, 1, HB, WB)
                weight = tl.where(begun, tl.exp(bias - scale * e - best) * share, 0.0)
                weight = _sums_in_tile(weight, tile_u, tile_v, height, width, K, -1, HB, WB)
            else:
                weight = tl.zeros((HB, WB), tl.float64)
                tiles: tl.constexpr = (HB + K - 2) // HB + 1  # of crops along an axis that hold pixels of this one
                for some in range(tiles * tiles):
                    behind_u, behind_v = K - 1 - some // tiles * HB, K - 1 - some % tiles * HB
                    at_u, at_v = u - behind_u, v - behind_v
                    near = (u0 - behind_u + HB > 0) & (u0 - behind_u < down)
                    if near & (v0 - behind_v + WB > 0) & (v0 - behind_v < beside):
                        e = pieced_sums(
                            x_ptr, row_ptr, j >= n, u0 - behind_u, v0 - behind_v, channels, height, width, plane,
                            line, step, shift, unit, K, K, False, C, HB, WB, SIDE, USED,
                        )  # fmt: skip
                        begun = (at_u >= 0) & (at_u < down) & (at_v >= 0) & (at_v < beside)
                        best = tl.load(norm_ptr + at_u * beside + at_v, mask=begun, other=0.0)
                        share = tl.load(norm_ptr + crops + at_u * beside + at_v, mask=begun, other=0.0)
                        one = tl.where(begun, tl.exp(bias - scale * e - best) * share, 0.0)
                        one = tile_sums(one, tile_u + tl.zeros_like(tile_v), some // tiles, K, 0, HB)
                        weight += tile_sums(one, tl.zeros_like(tile_u) + tile_v, some % tiles, K, 1, WB)
                at_row = u * line + column * step + c0 * plane
                y0, y1, y2, y3 = row_values(row_ptr, at_row, plane, there, second, third, fourth, G)
            a0 += weight * y0
            if G > 1:
                a1 += weight * y1
            if G > 2:
                a2 += weight * y2
            if G > 3:
                a3 += weight * y3
    pixels = height * width
    out = sums_ptr + (((part * B + b) * channels + c0) * pixels + u * width + v)
    own = there & (tile_u >= BEFORE) & (tile_u < BEFORE + USED) & (tile_v >= BEFORE) & (tile_v < BEFORE + USED)
    store_values(out, pixels, a0, a1, a2, a3, own, own & second, own & third, own & fourth, G)


@triton.jit(do_not_specialize=ANY)
def crops_apart_kernel(
    x_ptr, rows_ptr, bias_ptr, exclude_ptr, sigma_ptr, norm_ptr, sums_ptr,
    B, n, candidates, d, channels, height, width, plane, line, step, per_part, bias_stride, shift, unit,
    K: tl.constexpr, G: tl.constexpr, C: tl.constexpr, MIRRORED: tl.constexpr, BIAS: tl.constexpr,
    EXCLUDE: tl.constexpr, HB: tl.constexpr, WB: tl.constexpr, SIDE: tl.constexpr, USED: tl.constexpr,
    WHOLE: tl.constexpr,
):  # fmt: skip
    """sums [parts, B, K K, 2 channels, crops]: of w v, and behind them w v^2, at one pixel of each crop.

    C: channels, up to 4, or 0; G are summed.
    """
    ONE: tl.constexpr = WHOLE or HB == SIDE
    b, part, first, last = query_and_rows(B, candidates, per_part)
    place, piece = tl.program_id(0) // B % (K * K), tl.program_id(0) // B // (K * K)
    c0, u0, v0 = channels_and_tile(piece, channels, width - K + 1, G, USED)
    x_ptr += b * d
    u, v = u0 + tl.arange(0, HB)[:, None], v0 + tl.arange(0, WB)[None, :]
    down, beside = height - K + 1, width - K + 1
    begun = (u < tl.minimum(down, u0 + USED)) & (v < tl.minimum(beside, v0 + USED))
    second, third, fourth = further(begun, channels - c0, 0)
    scale = scale_of(sigma_ptr, b, unit)
    crops = down * beside
    norm_ptr += 2 * b * crops + u * beside + v
    if C > 0:
        best = tl.load(norm_ptr, mask=begun, other=0.0)
    in_u, in_v = u + place // K, v + place % K
    a0 = tl.zeros((HB, WB), tl.float64)
    a1, a2, a3, q0, q1, q2, q3 = a0, a0, a0, a0, a0, a0, a0
    for j in range(first, last):
        bias = log_prior(bias_ptr, exclude_ptr, b, j, n, bias_stride, BIAS, EXCLUDE)
        if bias > float("-inf"):
            row_ptr = rows_ptr + tl.where(j < n, j, j - n) * d
            e = _distances(
                x_ptr, row_ptr, MIRRORED and j >= n, u0, v0, channels, height, width, plane, line, step, shift, unit,
                K, C, HB, WB, SIDE, USED, ONE,
            )  # fmt: skip
            if C == 0:  # not before, since windows want the registers
                best = tl.load(norm_ptr, mask=begun, other=0.0)
            weight = tl.exp(bias - scale * e - best)
            column = tl.where(j < n, in_v, width - 1 - in_v) if MIRRORED else in_v
            at_row = in_u * line + column * step + c0 * plane
            y0, y1, y2, y3 = row_values(row_ptr, at_row, plane, begun, second, third, fourth, G)
            a0 += weight * y0
            q0 += weight * y0 * y0
            if G > 1:
                a1 += weight * y1
                q1 += weight * y1 * y1
            if G > 2:
                a2 += weight * y2
                q2 += weight * y2 * y2
            if G > 3:
                a3 += weight * y3
                q3 += weight * y3 * y3
    share = tl.load(norm_ptr + crops, mask=begun, other=0.0)  # here, where there are registers for it
    out = sums_ptr + ((((part * B + b) * (K * K) + place) * 2 * channels + c0) * crops + u * beside + v)
    store_values(out, crops, a0 * share, a1 * share, a2 * share, a3 * share, begun, second, third, fourth, G)
    out += channels * crops
    store_values(out, crops, q0 * share, q1 * share, q2 * share, q3 * share, begun, second, third, fourth, G)


@triton.jit(do_not_specialize=["B", "parts"])
def crops_merge_kernel(
    sums_ptr, mean_ptr, variance_ptr,
    B, parts, d, channels, height, width, plane, line, step, shift, unit,
    K: tl.constexpr, DETAILS: tl.constexpr, SB: tl.constexpr, PB: tl.constexpr,
):  # fmt: skip
    """The mean over the crops that hold a pixel, of parts of either kernel: PB pixels of one channel per program."""
    c, b = tl.program_id(1), tl.program_id(2).to(tl.int64)
    p, s = tl.program_id(0) * PB + tl.arange(0, PB), tl.arange(0, SB)
    pixels, down, beside = height * width, height - K + 1, width - K + 1
    here = p < pixels
    u, v = p // width, p % width
    over = tl.minimum(u, down - 1) - tl.maximum(u - K + 1, 0) + 1
    over *= tl.minimum(v, beside - 1) - tl.maximum(v - K + 1, 0) + 1
    over = tl.where(here, over, 1)
    at = b * d + c * plane + u * line + v * step
    r = tl.zeros((PB,), tl.float64)
    if DETAILS:
        crops = down * beside
        squared = tl.zeros((PB,), tl.float64)
        for place in range(K * K):
            from_u, from_v = u - place // K, v - place % K
            begun = here & (from_u >= 0) & (from_u < down) & (from_v >= 0) & (from_v < beside)
            sum_, sum_2 = tl.zeros((SB, PB), tl.float64), tl.zeros((SB, PB), tl.float64)
            for part in range(0, parts, SB):
                there = begun[None, :] & (part + s[:, None] < parts)
                first = (((part + s).to(tl.int64) * B + b) * (K * K) + place) * 2 * channels + c
                of_crop = sums_ptr + first[:, None] * crops + (from_u * beside + from_v)[None, :]
                sum_ += tl.load(of_crop, mask=there, other=0.0)
                sum_2 += tl.load(of_crop + channels * crops, mask=there, other=0.0)
            of_one = tl.sum(sum_, 0)
            r += of_one
            squared += tl.maximum(tl.sum(sum_2, 0) - of_one * of_one, 0.0)
        tl.store(variance_ptr + at, squared / over / unit / unit, mask=here)
    else:
        sum_ = tl.zeros((SB, PB), tl.float64)
        for part in range(0, parts, SB):
            there = here[None, :] & (part + s[:, None] < parts)
            first = ((part + s).to(tl.int64) * B + b) * channels + c
            sum_ += tl.load(sums_ptr + first[:, None] * pixels + p[None, :], mask=there, other=0.0)
        r = tl.sum(sum_, 0)
    tl.store(mean_ptr + at, (r / over + shift) / unit, mask=here)


def tile_of(images: Images, *, both: bool) -> Tile:
    """A tile in which crops lie that begin at pixels of use, or `both` begin and end there."""
    beyond = sum(images.reach) * (2 if both else 1)
    return whole_tile(images) or part_tile(images, beyond, 9 / 16)


def tile_apart(images: Images) -> Tile:
    """The tile of `crops_apart_kernel`: for sums of values and of squares there are registers for half the channels."""
    tile = tile_of(images, both=False)
    return tile._replace(G=min(CHANNELS // 2, tile.G))


def registers_of_mass(tile: Tile, channels: int, *, details: bool) -> dict[str, int]:
    """How `crops_mass_kernel` is launched."""
    return tile.registers if tile.warps == 16 and (details or channels > 3) else {}


def registers_of_sum(tile: Tile) -> dict[str, int]:
    """How `crops_sum_kernel` is launched."""
    return {} if tile.WHOLE or tile.HB == tile.SIDE else tile.registers


def crops(x: Tensor, sigma: Tensor, candidates: Candidates, images: Images, *, details: bool) -> Found:
    """w_i(a) = softmax_i(log pi_i - q_i(a) / 2 sigma^2) of crops a, r[c, p] = sum_i x_i[c, p] mean_a w_i(a), a of p.

    images.reach is (0, k - 1); the rest as for `local`, log_mass, ess and nearest of every crop.
    """
    (batch, d), (channels, height, width), rows = x.shape, images.shape, candidates.rows
    k, seen, new = images.reach[1] + 1, candidates.seen, partial(torch.empty, dtype=torch.float64, device=rows.device)
    begun = Images((channels, height - k + 1, width - k + 1), images.strides, images.reach)  # where crops begin
    given = x, rows, seen.bias_or(sigma), seen.exclude_or(rows), sigma
    sizes, units = (batch, len(rows), candidates.all, d, *images.shape, *images.strides), candidates.units
    chosen = {"K": k, "MIRRORED": candidates.mirrored, "BIAS": seen.kind, "EXCLUDE": seen.exclude is not None}

    def constants(tile: Tile) -> dict[str, Any]:
        tiled = {name: getattr(tile, name) for name in ("G", "HB", "WB", "SIDE", "USED", "WHOLE")}
        tiled["C"] = channels if channels <= CHANNELS else 0
        return {**chosen, **tiled, "num_warps": tile.warps, "enable_fp_fusion": True}

    def parts(numbers: int) -> tuple[int, Tensor]:
        per_part = candidates.per_part(batch * numbers)
        return per_part, new(triton.cdiv(candidates.all, per_part), batch, numbers)

    tile, count, planes = tile_of(images, both=False), begun.shape[1] * begun.shape[2], 4 if details else 2
    per_part, sums = parts(planes * count)
    mass = new(sums.shape[:2])
    crops_mass_kernel[(batch * tile.over(begun), len(sums))](
        *given, sums, mass, *sizes, per_part, seen.stride, *units, DETAILS=details, PRIORS=PRIORS, **constants(tile),
        **registers_of_mass(tile, channels, details=details),
    )  # fmt: skip
    sums = sums.unflatten(2, (planes, count))
    of_crops = merged(sums, mass, x, candidates, begun, details=details, summed=False)
    per_part, sums = parts(2 * channels * k * k * count if details else d)
    tile = tile_apart(images) if details else tile_of(images, both=True)
    groups, registers = triton.cdiv(channels, tile.G), {} if details else registers_of_sum(tile)
    if details:
        second = crops_apart_kernel[(batch * tile.over(begun) * groups * k * k, len(sums))]
    else:
        second = crops_sum_kernel[(batch * tile.over(images) * groups, len(sums))]
    second(*given, of_crops.mean, sums, *sizes, per_part, seen.stride, *units, **constants(tile), **registers)
    mean, variance = new(batch, d), new(batch, d) if details else None
    crops_merge_kernel[(triton.cdiv(height * width, MERGED_PIXELS), channels, batch)](
        sums, mean, mean if variance is None else variance,
        batch, len(sums), d, *images.shape, *images.strides, *units,
        K=k, DETAILS=details, SB=MERGED_PARTS, PB=MERGED_PIXELS, enable_fp_fusion=True,
    )  # fmt: skip
    return of_crops._replace(mean=mean, variance=variance)
