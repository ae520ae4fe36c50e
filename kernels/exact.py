"""The last resort: every row that may count in float64 difference form, in two launches."""

import torch
import triton
import triton.language as tl

from geodiff.kernels.asked import Asked
from geodiff.kernels.decide import tell
from geodiff.kernels.differences import (
    FEWER_COLUMNS,
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
from geodiff.kernels.merge import Running
from geodiff.kernels.queries import EXACT
from geodiff.kernels.weighted_sum import WORD, Marks

#: Of a part: max m of the logits l; sums of p = exp(l - m), p (l - m), p^2 and p c, c the bias.
_STATE = 5


@triton.jit
def exact_kernel(
    x_ptr, rows_ptr, bias_ptr, numbers_ptr, mark_ptr, path_ptr, acc_ptr, state_ptr,
    B, n, d, per_part, bias_stride, mark_stride,
    BIAS: tl.constexpr, WORD: tl.constexpr, BP: tl.constexpr, BD: tl.constexpr, PATH: tl.constexpr,
):  # fmt: skip
    """acc [parts, B, d] and state [parts, 5, B] of the marked rows of a part: an online softmax in float64.

    One part of `per_part` rows and one query per program.
    """
    part, b = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    if tl.load(path_ptr + b) != PATH:
        return
    p = tl.arange(0, BP)
    inv = tl.load(numbers_ptr + b)
    acc = acc_ptr + (part * B + b) * d
    clear(acc, d, BD)
    top = tl.full((), float("-inf"), tl.float64)
    total = tl.full((), 0.0, tl.float64)
    moment, squared, biased = total, total, total
    for first in range(part * per_part, tl.minimum(n, (part + 1) * per_part), BP):
        row = first + p
        there = marked(mark_ptr, b, row, n, mark_stride, WORD)
        if tl.max(there.to(tl.int32), 0) > 0:
            bias = biases(bias_ptr, b, row, there, bias_stride, BIAS, BP)
            logit = bias - 0.5 * squares(x_ptr, rows_ptr, b, row, there, d, BP, BD) * inv
            logit = tl.where(there, logit, float("-inf"))
            high = tl.maximum(top, tl.max(logit, 0))
            base = tl.where(high == float("-inf"), 0.0, high)  # -inf - -inf would be NaN
            gap = top - base
            scale = tl.exp(gap)
            below = logit - base
            weight = tl.exp(below)
            # 0 times an infinite number would be NaN.
            moment = scale * (moment + tl.where(scale > 0, gap, 0.0) * total)
            moment += tl.sum(weight * tl.where(weight > 0, below, 0.0), 0)
            total = total * scale + tl.sum(weight, 0)
            squared = squared * scale * scale + tl.sum(weight * weight, 0)
            biased = biased * scale + tl.sum(weight * tl.where(weight > 0, bias, 0.0), 0)
            top = high
            add_rows(acc, rows_ptr, weight, scale, row, there, d, BD)
    out = state_ptr + part * 5 * B + b
    tl.store(out, top)
    tl.store(out + B, total)
    tl.store(out + 2 * B, moment)
    tl.store(out + 3 * B, squared)
    tl.store(out + 4 * B, biased)


@triton.jit
def exact_merge_kernel(
    acc_ptr, state_ptr, path_ptr, mean_ptr, told_ptr, B, d, parts, shift, unit,
    SB: tl.constexpr, BD: tl.constexpr, PATH: tl.constexpr,
):  # fmt: skip
    """mean and `TOLD` of the parts of `exact_kernel`. BD columns and one query per program."""
    b = tl.program_id(1).to(tl.int64)
    if tl.load(path_ptr + b) != PATH:
        return
    k = tl.program_id(0) * BD + tl.arange(0, BD)
    s = tl.arange(0, SB)
    best, base = largest(state_ptr, b, B, parts, SB, 5)
    total = tl.zeros((SB,), tl.float64)
    moment, squared, biased = total, total, total
    acc = tl.zeros((BD,), tl.float64)
    for first in range(0, parts, SB):
        there = first + s < parts
        at = state_ptr + (first + s).to(tl.int64) * 5 * B + b
        gap = tl.load(at, mask=there, other=float("-inf")) - base
        scale = tl.exp(gap)
        sum_ = tl.load(at + B, mask=there, other=0.0)
        total += scale * sum_
        moment += scale * (tl.load(at + 2 * B, mask=there, other=0.0) + tl.where(scale > 0, gap, 0.0) * sum_)
        squared += scale * scale * tl.load(at + 3 * B, mask=there, other=0.0)
        biased += scale * tl.load(at + 4 * B, mask=there, other=0.0)
        part = acc_ptr + ((first + s).to(tl.int64) * B + b)[:, None] * d + k[None, :]
        acc += tl.sum(scale[:, None] * tl.load(part, mask=there[:, None] & (k[None, :] < d), other=0.0), 0)
    sum_ = tl.sum(total, 0)
    tl.store(mean_ptr + b * d + k, (acc / sum_ + shift) / unit, mask=k < d)
    if tl.program_id(0) == 0:
        tell(told_ptr, b, B, best, sum_, tl.sum(moment, 0), tl.sum(squared, 0), tl.sum(biased, 0))


def exact(asked: Asked, running: Running, marks: Marks) -> None:
    """Mean, and what is told, of the queries whose path is EXACT, over their marked rows."""
    data, queries, seen = running.data, running.queries, asked.seen
    (batch, d), n, rows = queries.centred.shape, asked.n, data.rows[asked.rows]
    parts, per_part = shares(n, batch, d)
    acc = torch.empty(parts, batch, d, dtype=torch.float64, device=rows.device)
    state = torch.empty(parts, _STATE, batch, dtype=torch.float64, device=rows.device)
    exact_kernel[(parts, batch)](
        queries.centred, rows, seen.bias_or(rows), queries.numbers, marks.bits, queries.path, acc, state,
        batch, n, d, per_part, seen.stride, marks.bits.stride(0),
        BIAS=seen.kind, WORD=WORD, BP=ROWS_AT_ONCE, BD=FEWER_COLUMNS, PATH=EXACT, enable_fp_fusion=True,
    )  # fmt: skip
    exact_merge_kernel[(triton.cdiv(d, MERGED_COLUMNS), batch)](
        acc, state, queries.path, running.mean, running.told, batch, d, parts, data.shift, data.unit,
        SB=MERGED_PARTS, BD=MERGED_COLUMNS, PATH=EXACT, enable_fp_fusion=True,
    )  # fmt: skip
