"""Draws from the posterior: its distribution function inverted, in float64 differences, in two looks at the rows."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from geodiff.base.inverse_cdf import fallen
from geodiff.kernels.asked import Asked
from geodiff.kernels.differences import FEWER_COLUMNS, ROWS_AT_ONCE, biases, marked, squares
from geodiff.kernels.marking import mark
from geodiff.kernels.prepared import Prepared
from geodiff.kernels.weighted_sum import WORD

#: Rows whose weights are summed up at first, and of which one lot is looked at again for each draw.
_LOT = 256


@triton.jit
def _logits(
    x_ptr, rows_ptr, bias_ptr, mark_ptr, b, row, n, d, inv, bias_stride, mark_stride,
    BIAS: tl.constexpr, WORD: tl.constexpr, BP: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """The logits [BP] of the marked rows for query b, -inf for the others."""
    there = marked(mark_ptr, b, row, n, mark_stride, WORD)
    bias = biases(bias_ptr, b, row, there, bias_stride, BIAS, BP)
    return tl.where(there, bias - 0.5 * squares(x_ptr, rows_ptr, b, row, there, d, BP, BD) * inv, float("-inf"))


@triton.jit
def mass_kernel(
    x_ptr, rows_ptr, bias_ptr, numbers_ptr, mark_ptr, top_ptr, mass_ptr, B, n, d, bias_stride, mark_stride,
    BIAS: tl.constexpr, WORD: tl.constexpr, LOT: tl.constexpr, BP: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """top [lots, B] and mass [lots, B]: the largest logit of a lot of rows, and sum exp(l - top). A lot per program."""
    lot, b = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    inv = tl.load(numbers_ptr + b)
    top = tl.full((), float("-inf"), tl.float64)
    mass = tl.full((), 0.0, tl.float64)
    for first in range(lot * LOT, tl.minimum(n, (lot + 1) * LOT), BP):
        row = first + tl.arange(0, BP)
        logit = _logits(
            x_ptr, rows_ptr, bias_ptr, mark_ptr, b, row, n, d, inv, bias_stride, mark_stride, BIAS, WORD, BP, BD
        )
        high = tl.maximum(top, tl.max(logit, 0))
        base = tl.where(high == float("-inf"), 0.0, high)  # -inf - -inf would be NaN
        mass = mass * tl.exp(top - base) + tl.sum(tl.exp(logit - base), 0)
        top = high
    tl.store(top_ptr + lot * B + b, top)
    tl.store(mass_ptr + lot * B + b, mass)


@triton.jit
def pick_kernel(
    x_ptr, rows_ptr, bias_ptr, numbers_ptr, mark_ptr, top_ptr, lot_ptr, target_ptr, out_ptr,
    B, n, d, count, bias_stride, mark_stride,
    BIAS: tl.constexpr, WORD: tl.constexpr, LOT: tl.constexpr, BP: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """out [B, count]: the first row of lot [B, count] at which the running sum of exp(l - top) exceeds target.

    The last row of any weight, if rounding ends short. One draw per program.
    """
    j, b = tl.program_id(0), tl.program_id(1).to(tl.int64)
    inv = tl.load(numbers_ptr + b)
    lot, target = tl.load(lot_ptr + b * count + j), tl.load(target_ptr + b * count + j)
    top = tl.load(top_ptr + lot * B + b)
    before = tl.full((), 0.0, tl.float64)
    found, last = lot * 0 - 1, lot * 0 - 1
    for first in range(lot * LOT, tl.minimum(n, (lot + 1) * LOT), BP):
        row = first + tl.arange(0, BP)
        logit = _logits(
            x_ptr, rows_ptr, bias_ptr, mark_ptr, b, row, n, d, inv, bias_stride, mark_stride, BIAS, WORD, BP, BD
        )
        weight = tl.exp(logit - top)
        sums = before + tl.cumsum(weight, 0)
        over = tl.min(tl.where(sums > target, row, n), 0)
        found = tl.where((found < 0) & (over < n), over, found)
        last = tl.maximum(last, tl.max(tl.where(weight > 0, row, -1), 0))
        before += tl.sum(weight, 0)
    tl.store(out_ptr + b * count + j, tl.where(found < 0, last, found))


def drawn(data: Prepared, asked: Asked, uniform: Tensor) -> Tensor:
    """For each number of uniform [B, n] in [0, 1), the first i at which w_1 + ... + w_i exceeds it: int64 [B, n].

    Counted from the first row asked for; uniform float64 and contiguous.
    """
    # All rows that are left out have a probability of 1e-12 together: less than is drawn in a lifetime.
    queries, marks = mark(data, asked, math.log(asked.n * 1e12))
    (batch, d), n, count = queries.centred.shape, asked.n, uniform.shape[1]
    lots, rows, seen = triton.cdiv(n, _LOT), data.rows[asked.rows], asked.seen
    top, mass = uniform.new_empty(2, lots, batch)
    starts = queries.centred, rows, seen.bias_or(rows), queries.numbers, marks.bits, top
    sizes = {"bias_stride": seen.stride, "mark_stride": marks.bits.stride(0), "BIAS": seen.kind, "WORD": WORD}
    sizes |= {"LOT": _LOT, "BP": ROWS_AT_ONCE, "BD": FEWER_COLUMNS, "num_warps": 8, "enable_fp_fusion": True}
    mass_kernel[(lots, batch)](*starts, mass, batch, n, d, **sizes)
    lot, target = fallen(top, mass, uniform)
    out = torch.empty(batch, count, dtype=torch.int64, device=uniform.device)
    pick_kernel[(count, batch)](*starts, lot, target, out, batch, n, d, count, **sizes)
    return out
