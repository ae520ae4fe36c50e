"""Covariances under the posterior, in float64 differences over the rows that may count, in one pass over the data."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from geodiff.kernels.asked import Asked
from geodiff.kernels.bounds import cutoff
from geodiff.kernels.differences import (
    COLUMNS,
    MERGED_COLUMNS,
    MERGED_PARTS,
    ROWS_AT_ONCE,
    add_rows,
    biases,
    clear,
    largest,
    marked,
    shares,
    squares,
)
from geodiff.kernels.marking import mark
from geodiff.kernels.prepared import Prepared
from geodiff.kernels.refine import centred
from geodiff.kernels.weighted_sum import WORD

#: Of a part: max m of the logits l; sums of p = exp(l - m), p c, p f and p c f, c and f as in `covariance_kernel`.
_STATE = 5
#: A covariance is measured against sigma^2, so what may be dropped is less by the factor (2 radius / sigma)^2 than for
#: the mean: so much of it is reckoned with, sigma down to some 1e-8 of the radius. To ask which it is would wait.
_SPREAD = 1e16


@triton.jit
def _products(v_ptr, rows_ptr, b, row, there, d, BP: tl.constexpr, BD: tl.constexpr):
    """<v_b, row> [BP] float64 of the rows that are there."""
    k = tl.arange(0, BD)
    total = tl.zeros((BP,), tl.float64)
    for column in range(0, d, BD):
        here = there[:, None] & (k[None, :] < d - column)
        v = tl.load(v_ptr + b * d + column + k, mask=k < d - column, other=0.0)[None, :]
        total += tl.sum(v * centred(tl.load(rows_ptr + row[:, None] * d + column + k[None, :], mask=here, other=0)), 1)
    return total


@triton.jit
def covariance_kernel(
    x_ptr, v_ptr, rows_ptr, bias_ptr, numbers_ptr, along_ptr, mark_ptr, acc_ptr, state_ptr,
    B, n, d, per_part, bias_stride, mark_stride,
    BIAS: tl.constexpr, WORD: tl.constexpr, BP: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """acc [parts, B, d] = sum p c v and state [parts, 5, B] of the marked rows of a part, by an online softmax.

    c = <v, row> - along_0 + along_2 f and f = |x - row|^2 - along_1, for along [3, B]. One part of `per_part` rows and
    one query per program.
    """
    part, b = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    p = tl.arange(0, BP)
    inv = tl.load(numbers_ptr + b)
    level, origin = tl.load(along_ptr + b), tl.load(along_ptr + B + b)
    slope = tl.load(along_ptr + 2 * B + b)
    acc = acc_ptr + (part * B + b) * d
    clear(acc, d, BD)
    top = tl.full((), float("-inf"), tl.float64)
    total = tl.full((), 0.0, tl.float64)
    sum_c, sum_f, crossed = total, total, total
    for first in range(part * per_part, tl.minimum(n, (part + 1) * per_part), BP):
        row = first + p
        there = marked(mark_ptr, b, row, n, mark_stride, WORD)
        if tl.max(there.to(tl.int32), 0) > 0:
            distance = squares(x_ptr, rows_ptr, b, row, there, d, BP, BD)
            logit = biases(bias_ptr, b, row, there, bias_stride, BIAS, BP) - 0.5 * distance * inv
            logit = tl.where(there, logit, float("-inf"))
            high = tl.maximum(top, tl.max(logit, 0))
            base = tl.where(high == float("-inf"), 0.0, high)  # -inf - -inf would be NaN
            scale = tl.exp(top - base)
            weight = tl.exp(logit - base)
            f = distance - origin
            c = _products(v_ptr, rows_ptr, b, row, there, d, BP, BD) - level + slope * f
            weighted = weight * c
            total = total * scale + tl.sum(weight, 0)
            sum_c = sum_c * scale + tl.sum(weighted, 0)
            sum_f = sum_f * scale + tl.sum(weight * f, 0)
            crossed = crossed * scale + tl.sum(weighted * f, 0)
            top = high
            add_rows(acc, rows_ptr, weighted, scale, row, there, d, BD)
    out = state_ptr + part * 5 * B + b
    tl.store(out, top)
    tl.store(out + B, total)
    tl.store(out + 2 * B, sum_c)
    tl.store(out + 3 * B, sum_f)
    tl.store(out + 4 * B, crossed)


@triton.jit
def covariance_merge_kernel(
    acc_ptr, state_ptr, mean_ptr, rows_out_ptr, far_out_ptr, B, d, parts, shift, unit,
    SB: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Cov(c, row) / unit and Cov(c, f) / unit^2 of the parts of `covariance_kernel`. BD columns and one query each."""
    b = tl.program_id(1).to(tl.int64)
    k = tl.program_id(0) * BD + tl.arange(0, BD)
    s = tl.arange(0, SB)
    _, base = largest(state_ptr, b, B, parts, SB, 5)
    t1 = tl.zeros((SB,), tl.float64)
    t2, t3, t4 = t1, t1, t1
    acc = tl.zeros((BD,), tl.float64)
    for first in range(0, parts, SB):
        there = first + s < parts
        at = state_ptr + (first + s).to(tl.int64) * 5 * B + b
        scale = tl.exp(tl.load(at, mask=there, other=float("-inf")) - base)
        t1 += scale * tl.load(at + B, mask=there, other=0.0)
        t2 += scale * tl.load(at + 2 * B, mask=there, other=0.0)
        t3 += scale * tl.load(at + 3 * B, mask=there, other=0.0)
        t4 += scale * tl.load(at + 4 * B, mask=there, other=0.0)
        part = acc_ptr + ((first + s).to(tl.int64) * B + b)[:, None] * d + k[None, :]
        acc += tl.sum(scale[:, None] * tl.load(part, mask=there[:, None] & (k[None, :] < d), other=0.0), 0)
    total, sum_c = tl.sum(t1, 0), tl.sum(t2, 0)
    none = tl.full((), 0.0, tl.float64)
    unit, shift = none + unit, none + shift
    r = tl.load(mean_ptr + b * d + k, mask=k < d, other=0.0) * unit - shift
    tl.store(rows_out_ptr + b * d + k, (acc - sum_c * r) / total / unit, mask=k < d)
    if tl.program_id(0) == 0:
        far = tl.sum(t4, 0) / total - (sum_c / total) * (tl.sum(t3, 0) / total)
        tl.store(far_out_ptr + b, far / (unit * unit))


def covariance(
    data: Prepared, asked: Asked, mean: Tensor, v: Tensor, slope: Tensor, out: tuple[Tensor, Tensor]
) -> None:
    """Writes Cov_w(c, x_i), out[0] [B, d], and Cov_w(c, |x - x_i|^2), out[1] [B].

    c_i = <x_i, v> + slope |x - x_i|^2; mean [B, d] is r; v [B, d]; slope [B]; float64, contiguous, in model space.
    """
    batch, d = v.shape
    queries, marks = mark(data, asked, cutoff(data, asked.n, asked.tol) + math.log(_SPREAD))
    r = mean * data.unit - data.shift
    v = v / data.unit
    along = torch.stack([(r * v).sum(1), (queries.centred - r).square().sum(1), slope / data.unit**2])
    parts, per_part = shares(asked.n, batch, d)
    acc = torch.empty(parts, batch, d, dtype=torch.float64, device=v.device)
    state = torch.empty(parts, _STATE, batch, dtype=torch.float64, device=v.device)
    rows, seen = data.rows[asked.rows], asked.seen
    covariance_kernel[(parts, batch)](
        queries.centred, v, rows, seen.bias_or(rows), queries.numbers, along, marks.bits, acc, state,
        batch, asked.n, d, per_part, seen.stride, marks.bits.stride(0),
        BIAS=seen.kind, WORD=WORD, BP=ROWS_AT_ONCE, BD=COLUMNS, enable_fp_fusion=True,
    )  # fmt: skip
    covariance_merge_kernel[(triton.cdiv(d, MERGED_COLUMNS), batch)](
        acc, state, mean, *out, batch, d, parts, data.shift, data.unit,
        SB=MERGED_PARTS, BD=MERGED_COLUMNS, num_warps=8, enable_fp_fusion=True,  # with 4, Triton 3.6 has a stack
    )  # fmt: skip
