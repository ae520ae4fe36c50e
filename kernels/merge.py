"""Joining partial softmax sums: of the splits of a chunk, which have one reference, and of chunks by log-sum-exp."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from geodiff.kernels.asked import Chunk
from geodiff.kernels.prepared import Prepared
from geodiff.kernels.queries import Queries
from geodiff.kernels.weighted_sum import STATE, Marks, softmax, weighed, weighted_sum

_COLUMNS = 128
_GROUPS, _PIECES = 8, 128
#: What is kept of a query: the best logit that its sums are relative to, those of `STATE`, and the best one when rows
#: that count were last left out of the mean.
KEPT = STATE + 2
#: What is told of a query beside its mean, [4, B] float64: log sum_i exp(-|x - v_i|^2 / 2 sigma^2 + bias_i); the
#: entropy; the effective sample size; E_w bias_i.
TOLD = 4


@triton.jit
def merge_kernel(
    sums_ptr, summed_ptr, state_ptr, numbers_ptr, count_ptr, best_ptr, acc_ptr, kept_ptr, acc_out_ptr, kept_out_ptr,
    mean_ptr, B, G, S, stride, d, most, shift, unit,
    FIRST: tl.constexpr, LAST: tl.constexpr, GB: tl.constexpr, SB: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """One query and BD columns per program, G groups GB at a time and S splits SB at a time; see `Running`.

    stride = S B.
    """
    b = tl.program_id(1).to(tl.int64)
    k = tl.program_id(0) * BD + tl.arange(0, BD)
    g, s = tl.arange(0, GB), tl.arange(0, SB)
    acc = tl.zeros((BD,), tl.float64)
    best = tl.load(best_ptr + b)
    scale = tl.full((), 0.0, tl.float64)
    gap, lost = scale, tl.full((), float("-inf"), tl.float64)
    if not FIRST:
        old = tl.load(kept_ptr + b)
        gap = old - tl.where(best == float("-inf"), 0.0, best)  # -inf - -inf would be NaN
        scale = tl.exp(gap)
        gap = tl.where(scale > 0, gap, 0.0)  # 0 times an infinite gap would be NaN
        lost = tl.load(kept_ptr + 6 * B + b)
        acc = scale * tl.load(acc_ptr + b * d + k, mask=k < d, other=0.0)
    wanted = weighed(numbers_ptr, count_ptr, b, B, most)
    for first in range(0, tl.where(wanted, G, 0), GB):
        at = (first + g).to(tl.int64) * B + b
        here = tl.load(summed_ptr + at, mask=first + g < G, other=0) > 0
        v = tl.load(sums_ptr + at[:, None] * d + k[None, :], mask=here[:, None] & (k[None, :] < d), other=0.0)
        acc += tl.sum(v.to(tl.float64), 0)  # [GB, BD]
    total = tl.full((), 0.0, tl.float64)
    if LAST or tl.program_id(0) == 0:
        t1 = tl.zeros((SB,), tl.float64)
        t2, t3, t4, t5 = t1, t1, t1, t1
        for first in range(0, S, SB):
            here = first + s < S
            at = state_ptr + (first + s).to(tl.int64) * B + b
            t1 += tl.load(at, mask=here, other=0.0)
            t2 += tl.load(at + stride, mask=here, other=0.0)
            t3 += tl.load(at + 2 * stride, mask=here, other=0.0)
            t4 += tl.load(at + 3 * stride, mask=here, other=0.0)
            t5 += tl.load(at + 4 * stride, mask=here, other=0.0)
        total, moment, squares = tl.sum(t1, 0), tl.sum(t2, 0), tl.sum(t3, 0)
        halves, biases = tl.sum(t4, 0), tl.sum(t5, 0)
        if not FIRST:
            sum_old = scale * tl.load(kept_ptr + B + b)
            total += sum_old
            moment += scale * tl.load(kept_ptr + 2 * B + b) + gap * sum_old
            squares += scale * scale * tl.load(kept_ptr + 3 * B + b)
            halves += scale * tl.load(kept_ptr + 4 * B + b)
            biases += scale * tl.load(kept_ptr + 5 * B + b)
        if tl.program_id(0) == 0:
            tl.store(kept_out_ptr + b, best)
            tl.store(kept_out_ptr + B + b, total)
            tl.store(kept_out_ptr + 2 * B + b, moment)
            tl.store(kept_out_ptr + 3 * B + b, squares)
            tl.store(kept_out_ptr + 4 * B + b, halves)
            tl.store(kept_out_ptr + 5 * B + b, biases)
            tl.store(kept_out_ptr + 6 * B + b, tl.where(wanted, lost, best))
    if LAST:
        tl.store(mean_ptr + b * d + k, (acc / total + shift) / unit, mask=k < d)
    else:
        tl.store(acc_out_ptr + b * d + k, acc, mask=k < d)


class Running:
    """sum_i exp(l_i - best) v_i over the rows seen so far, and the softmax state that belongs to it.

    kept [KEPT, B] float64: best, and the sums of p, p (l - best), p^2, p h and p c; then the best logit when rows that
    count were last left out of the mean. `mean` [B, d] float64 is complete after the merge that was told it is the
    last: (sum p v / sum p + shift) / unit, which is r in model space. `told` [TOLD, B] is for those that decide.
    """

    def __init__(self, data: Prepared, queries: Queries, mean: Tensor, cut: float) -> None:
        self.data, self.queries, self.mean, self.cut = data, queries, mean, cut
        self.told = mean.new_empty(TOLD, len(mean))
        self._old, self._new = mean, mean
        self._before, self.kept = (mean.new_empty(KEPT, len(mean)) for _ in range(2))
        self._first = True

    def take(self, logits: Tensor, chunk: Chunk, marks: Marks, most: int, *, last: bool) -> None:
        """Takes in the logits [B, C] of a chunk, with marks from its first row on.

        most: rows that may count up to which a query is left out of the mean.
        """
        state, weights = softmax(logits, self.data, chunk, self.queries, marks, self.cut)
        found = weighted_sum(weights, self.data.rows[chunk.rows], self.queries, marks, most)
        (groups, batch, d), pieces = found.sums.shape, state.shape[1]
        if not last:
            self._new = torch.empty_like(self.mean)
        self._before, self.kept = self.kept, self._before
        queries = self.queries
        merge_kernel[(triton.cdiv(d, _COLUMNS), batch)](
            found.sums, found.summed, state, queries.numbers, queries.count, queries.best, self._old, self._before,
            self._new, self.kept, self.mean, batch, groups, pieces, pieces * batch, d, most,
            self.data.shift, self.data.unit,
            FIRST=self._first, LAST=last, GB=_GROUPS, SB=_PIECES, BD=_COLUMNS, enable_fp_fusion=True,
        )  # fmt: skip
        self._old, self._first = self._new, False
