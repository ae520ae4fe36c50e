"""The last resort: every row that may count in float64 difference form, in two launches."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from geodiff.kernels.configs import INTERPRETED
from geodiff.kernels.decide import tell
from geodiff.kernels.prepared import Prepared
from geodiff.kernels.queries import EXACT, Queries
from geodiff.kernels.refine import centred
from geodiff.kernels.seen import Seen
from geodiff.kernels.weighted_sum import WORD, Marks

ROWS_AT_ONCE = 16 if not INTERPRETED else WORD  # of a tile, which lie in one word of marks
COLUMNS = 128 if not INTERPRETED else 512
MERGED_COLUMNS, MERGED_PARTS = 128, 8
_PARTS = 256 if not INTERPRETED else 4  # shares of the rows at most, each a program of its own
_SUMS = 2**22  # numbers in their sums
#: Of a part: max m of the logits l; sums of p = exp(l - m), p (l - m), p^2 and p c, c the bias.
_STATE = 5


@triton.jit
def marked(mark_ptr, b, row, n, mark_stride, WORD: tl.constexpr):
    """Which of `row` [BP] may count for query b, by their marks."""
    words = tl.load(mark_ptr + b * mark_stride + row // WORD, mask=row < n, other=0)
    return ((words >> (row % WORD).to(tl.int32)) & 1) > 0


@triton.jit
def squares(x_ptr, rows_ptr, b, row, there, d, BP: tl.constexpr, BD: tl.constexpr):
    """|x_b - v_row|^2 [BP] float64 of the rows that are there."""
    k = tl.arange(0, BD)
    total = tl.zeros((BP,), tl.float64)
    for column in range(0, d, BD):
        here = there[:, None] & (k[None, :] < d - column)
        x = tl.load(x_ptr + b * d + column + k, mask=k < d - column, other=0.0)[None, :]
        v = centred(tl.load(rows_ptr + row[:, None] * d + column + k[None, :], mask=here, other=0))
        difference = tl.where(here, x - v, 0.0)
        total += tl.sum(difference * difference, 1)
    return total


@triton.jit
def biases(bias_ptr, b, row, there, bias_stride, BIAS: tl.constexpr, BP: tl.constexpr):
    """The bias [BP] of each row for query b. BIAS: 0 none, 1 for all queries, 2 one row for each."""
    bias = tl.zeros((BP,), tl.float64)
    if BIAS > 0:
        at = bias_ptr + row if BIAS == 1 else bias_ptr + b * bias_stride + row
        bias = tl.load(at, mask=there, other=0.0)
    return bias


@triton.jit
def add_rows(acc_ptr, rows_ptr, weight, scale, row, there, d, BD: tl.constexpr):
    """acc [d] = scale acc + sum over rows of weight v; a weight is 0 where no row is."""
    k = tl.arange(0, BD)
    tl.debug_barrier()  # what other threads of this program wrote
    for column in range(0, d, BD):
        here = there[:, None] & (k[None, :] < d - column)
        v = centred(tl.load(rows_ptr + row[:, None] * d + column + k[None, :], mask=here, other=0))
        sum_ = scale * tl.load(acc_ptr + column + k, mask=k < d - column, other=0.0)
        sum_ += tl.sum(weight[:, None] * v, 0)
        tl.store(acc_ptr + column + k, sum_, mask=k < d - column)
    tl.debug_barrier()


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
    p, k = tl.arange(0, BP), tl.arange(0, BD)
    inv = tl.load(numbers_ptr + b)
    acc = acc_ptr + (part * B + b) * d
    for column in range(0, d, BD):
        tl.store(acc + column + k, tl.zeros((BD,), tl.float64), mask=k < d - column)
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
    top = tl.full((SB,), float("-inf"), tl.float64)
    for first in range(0, parts, SB):
        at = state_ptr + (first + s).to(tl.int64) * 5 * B + b
        top = tl.maximum(top, tl.load(at, mask=first + s < parts, other=float("-inf")))
    best = tl.max(top, 0)
    base = tl.where(best == float("-inf"), 0.0, best)
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


def shares(n: int, batch: int, d: int) -> tuple[int, int]:
    """(parts, rows of each): of n rows, each part with sums [B, d] of its own."""
    most = max(1, min(_PARTS, _SUMS // (batch * d)))
    per_part = triton.cdiv(triton.cdiv(n, most), WORD) * WORD
    return triton.cdiv(n, per_part), per_part


def exact(data: Prepared, rows: Tensor, seen: Seen, queries: Queries, marks: Marks, mean: Tensor, told: Tensor) -> None:
    """mean [B, d] and told [TOLD, B] of the queries whose path is EXACT, over their marked `rows`."""
    (batch, d), n = queries.centred.shape, len(rows)
    parts, per_part = shares(n, batch, d)
    acc = torch.empty(parts, batch, d, dtype=torch.float64, device=rows.device)
    state = torch.empty(parts, _STATE, batch, dtype=torch.float64, device=rows.device)
    exact_kernel[(parts, batch)](
        queries.centred, rows, seen.bias_or(rows), queries.numbers, marks.bits, queries.path, acc, state,
        batch, n, d, per_part, seen.stride, marks.bits.stride(0),
        BIAS=seen.kind, WORD=WORD, BP=ROWS_AT_ONCE, BD=COLUMNS, PATH=EXACT, enable_fp_fusion=True,
    )  # fmt: skip
    exact_merge_kernel[(triton.cdiv(d, MERGED_COLUMNS), batch)](
        acc, state, queries.path, mean, told, batch, d, parts, data.shift, data.unit,
        SB=MERGED_PARTS, BD=MERGED_COLUMNS, PATH=EXACT, enable_fp_fusion=True,
    )  # fmt: skip
