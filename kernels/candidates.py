"""Few rows count for a query: those in float64 difference form, found by their marks, in two launches."""

import torch
import triton
import triton.language as tl

from geodiff.kernels.asked import Asked
from geodiff.kernels.configs import INTERPRETED, SPLIT
from geodiff.kernels.decide import tell
from geodiff.kernels.differences import biases, squares
from geodiff.kernels.merge import Running
from geodiff.kernels.queries import SCREENED
from geodiff.kernels.refine import centred
from geodiff.kernels.weighted_sum import WORD, Marks

#: Rows that may count up to which they are looked at one by one: more cost as much as a pass over everything.
MOST = 1024
_ROWS = 16
_COLUMNS = 128
_SUM_COLUMNS = 512 if INTERPRETED else 64


@triton.jit
def candidate_kernel(
    x_ptr, rows_ptr, bias_ptr, numbers_ptr, mark_ptr, counts_ptr, path_ptr, row_ptr, logit_ptr,
    d, bias_stride, mark_stride, counts_stride, width,
    BIAS: tl.constexpr, SPLIT: tl.constexpr, WORD: tl.constexpr, BP: tl.constexpr, BD: tl.constexpr, PATH: tl.constexpr,
):  # fmt: skip
    """row [B, width] and logit [B, width] = -|x - v_row|^2 inv / 2 + bias_row of the marked rows, in their order.

    One split and one query per program. BIAS: 0 none, 1 for all queries, 2 one row for each.
    """
    split, b = tl.program_id(0), tl.program_id(1).to(tl.int64)
    if tl.load(path_ptr + b) != PATH:
        return
    count = tl.load(counts_ptr + b * counts_stride + split)
    if count == 0:
        return
    before = tl.zeros((SPLIT,), tl.int32)
    lane = tl.arange(0, SPLIT)
    for first in range(0, split, SPLIT):
        before += tl.load(counts_ptr + b * counts_stride + first + lane, mask=first + lane < split, other=0)
    place = b * width + tl.sum(before, 0)
    words = tl.load(mark_ptr + b * mark_stride + split * (SPLIT // WORD) + lane // WORD)
    marked = (words >> (lane % WORD)) & 1
    rank = tl.cumsum(marked, 0) - 1
    inv = tl.load(numbers_ptr + b)
    p = tl.arange(0, BP)
    for first in range(0, count, BP):
        chosen = (rank[None, :] == (first + p)[:, None]) & (marked[None, :] > 0)  # [BP, SPLIT]
        row = split.to(tl.int64) * SPLIT + tl.sum(tl.where(chosen, lane[None, :], 0), 1)
        there = first + p < count
        logit = -0.5 * squares(x_ptr, rows_ptr, b, row, there, d, BP, BD) * inv
        logit += biases(bias_ptr, b, row, there, bias_stride, BIAS, BP)
        tl.store(row_ptr + place + first + p, row.to(tl.int32), mask=there)
        tl.store(logit_ptr + place + first + p, logit, mask=there)


@triton.jit
def candidate_sum_kernel(
    rows_ptr, bias_ptr, count_ptr, path_ptr, row_ptr, logit_ptr, mean_ptr, told_ptr,
    B, d, bias_stride, width, shift, unit,
    BIAS: tl.constexpr, BP: tl.constexpr, BD: tl.constexpr, PATH: tl.constexpr,
):  # fmt: skip
    """mean and `TOLD` of the listed rows' softmax in float64. BD columns and one query per program."""
    b = tl.program_id(1).to(tl.int64)
    if tl.load(path_ptr + b) != PATH:
        return
    k = tl.program_id(0) * BD + tl.arange(0, BD)
    p = tl.arange(0, BP)
    count = tl.load(count_ptr + b)
    top = tl.full((BP,), float("-inf"), tl.float64)
    for first in range(0, count, BP):
        top = tl.maximum(top, tl.load(logit_ptr + b * width + first + p, mask=first + p < count, other=float("-inf")))
    best = tl.max(top, 0)
    total = tl.zeros((BP,), tl.float64)
    moment, squared, biased = total, total, total
    acc = tl.zeros((BD,), tl.float64)
    for first in range(0, count, BP):
        there = first + p < count
        below = tl.load(logit_ptr + b * width + first + p, mask=there, other=float("-inf")) - best
        weight = tl.exp(below)
        row = tl.load(row_ptr + b * width + first + p, mask=there, other=0).to(tl.int64)
        here = there[:, None] & (k[None, :] < d)
        v = centred(tl.load(rows_ptr + row[:, None] * d + k[None, :], mask=here, other=0))
        acc += tl.sum(weight[:, None] * v, 0)  # a weight is 0 outside
        total += weight
        moment += weight * tl.where(weight > 0, below, 0.0)  # 0 times -inf would be NaN
        squared += weight * weight
        if BIAS > 0:
            at = bias_ptr + row if BIAS == 1 else bias_ptr + b * bias_stride + row
            biased += weight * tl.where(weight > 0, tl.load(at, mask=there, other=0.0), 0.0)
    sum_ = tl.sum(total, 0)
    tl.store(mean_ptr + b * d + k, (acc / sum_ + shift) / unit, mask=k < d)
    if tl.program_id(0) == 0:
        tell(told_ptr, b, B, best, sum_, tl.sum(moment, 0), tl.sum(squared, 0), tl.sum(biased, 0))


def candidates(asked: Asked, running: Running, marks: Marks, width: int) -> None:
    """Mean, and what is told, of the queries whose path is SCREENED, over their marked rows, at most `width`."""
    data, queries, seen = running.data, running.queries, asked.seen
    (batch, d), rows = queries.centred.shape, data.rows[asked.rows]
    listed = torch.empty(batch, width, dtype=torch.int32, device=rows.device)
    logits = torch.empty(batch, width, dtype=torch.float64, device=rows.device)
    own, stride, kind = seen.bias_or(rows), seen.stride, seen.kind
    candidate_kernel[(marks.counts.shape[1], batch)](
        queries.centred, rows, own, queries.numbers, marks.bits, marks.counts, queries.path, listed, logits,
        d, stride, marks.bits.stride(0), marks.counts.stride(0), width,
        BIAS=kind, SPLIT=SPLIT, WORD=WORD, BP=_ROWS, BD=_COLUMNS, PATH=SCREENED, enable_fp_fusion=True,
    )  # fmt: skip
    candidate_sum_kernel[(triton.cdiv(d, _SUM_COLUMNS), batch)](
        rows, own, queries.count, queries.path, listed, logits, running.mean, running.told,
        batch, d, stride, width, data.shift, data.unit,
        BIAS=kind, BP=_ROWS, BD=_SUM_COLUMNS, PATH=SCREENED, enable_fp_fusion=True,
    )  # fmt: skip
