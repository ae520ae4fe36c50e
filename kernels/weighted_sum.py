"""The second product: softmax weights times rows, on tensor cores, one partial sum per split of SPLIT rows.

All weights are relative to the largest logit so far, which the first product has found. They are made once, in the
parts that tensor cores multiply, and not anew for every tile of columns.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from geodiff.kernels.asked import Chunk
from geodiff.kernels.configs import SPLIT, STEP, WEIGHTED_SUM, configured
from geodiff.kernels.logits import product, three_parts
from geodiff.kernels.prepared import Prepared
from geodiff.kernels.queries import Queries

#: What is kept of a split's softmax: sums of p = exp(l - best), p (l - best), p^2, p h and p c, with h_i = |v_i|^2 / 2
#: and c_i the bias (0 without one).
STATE = 5
#: Rows whose marks are one number.
WORD = 32
#: The parts of a weight by what is stored: two float16 are 22 bits of it, three bfloat16 are 24.
PARTS = {
    torch.uint8: (2, torch.float16),
    torch.float16: (2, torch.float16),
    torch.bfloat16: (3, torch.bfloat16),
    torch.float32: (3, torch.bfloat16),
}
_QUERIES, _WARPS = 4, 8  # per program of `softmax_state`


@triton.jit
def softmax_state(
    l_ptr, half_ptr, away_ptr, bias_ptr, exclude_ptr, numbers_ptr, facts_ptr, best_ptr, state_ptr, p_ptr, mark_ptr,
    counts_ptr, count_ptr, B, C, stride, bias_stride, part_stride, mark_stride, counts_stride, start, cut,
    BIAS: tl.constexpr, EXCLUDE: tl.constexpr, BB: tl.constexpr, SPLIT: tl.constexpr, WORD: tl.constexpr,
):  # fmt: skip
    """state [STATE, S, B] float64 of logits l [B, C], and the weights p = exp(l - best) in parts [PARTS, B, C].

    One program per split and BB queries; stride = S B, part_stride = B C. A row may count for a query if its logit,
    with the error it may have, reaches the best one's least value - cut. Those are marked, a bit each, [B, S SPLIT /
    WORD], and counted, [B, S] and in all [B]; the others have weight 0. BIAS, EXCLUDE: as for `logits_bytes`.
    """
    split = tl.program_id(0)
    b = tl.program_id(1) * BB + tl.arange(0, BB)
    r = split * SPLIT + tl.arange(0, SPLIT)
    inside = (b[:, None] < B) & (r[None, :] < C)
    place = b.to(tl.int64)[:, None] * C + r[None, :]
    part_stride = tl.full((), 0, tl.int64) + part_stride
    logit = tl.load(l_ptr + place, mask=inside, other=float("-inf"))  # [BB, SPLIT]
    half = tl.load(half_ptr + r, mask=r < C, other=0.0)[None, :]
    away = tl.load(away_ptr + r, mask=r < C, other=0.0)[None, :]
    best = tl.load(best_ptr + b, mask=b < B, other=0.0)
    row_error = tl.load(numbers_ptr + 4 * B + b, mask=b < B, other=0.0)
    base_error = tl.load(numbers_ptr + 5 * B + b, mask=b < B, other=0.0)
    least = best - (row_error * tl.load(facts_ptr) + base_error) - cut  # -inf where the logits say nothing
    error = tl.where(logit > float("-inf"), row_error[:, None] * away + base_error[:, None], 0.0)
    # So that what is unknown counts: a logit that is no number is not below anything.
    keep = inside & ~(logit + error < least[:, None])
    weighted = tl.zeros((BB, SPLIT), tl.float64)
    if BIAS == 1:
        weighted += tl.load(bias_ptr + r, mask=r < C, other=0.0)[None, :]
    elif BIAS == 2:
        weighted += tl.load(bias_ptr + b.to(tl.int64)[:, None] * bias_stride + r[None, :], mask=inside, other=0.0)
    if BIAS > 0:
        keep = keep & (weighted > float("-inf"))
    if EXCLUDE:
        keep = keep & (r[None, :] != tl.load(exclude_ptr + b, mask=b < B, other=-1)[:, None] - start)
    below = (logit - tl.where(best == float("-inf"), 0.0, best)[:, None]).to(tl.float32)  # -inf - -inf would be NaN
    weight = tl.exp(below)
    _write_parts(p_ptr, tl.where(keep, weight, 0.0), place, part_stride, inside)
    p = weight.to(tl.float64)
    out = state_ptr + split.to(tl.int64) * B + b
    tl.store(out, tl.sum(p, 1), mask=b < B)
    # 0 times an infinite number would be NaN.
    tl.store(out + stride, tl.sum(p * tl.where(p > 0, below.to(tl.float64), 0.0), 1), mask=b < B)
    tl.store(out + 2 * stride, tl.sum(p * p, 1), mask=b < B)
    tl.store(out + 3 * stride, tl.sum(p * half, 1), mask=b < B)
    tl.store(out + 4 * stride, tl.sum(p * tl.where(p > 0, weighted, 0.0), 1), mask=b < B)
    marks = tl.reshape(keep.to(tl.int32), (BB, SPLIT // WORD, WORD)) << tl.arange(0, WORD)[None, None, :]
    word = split * (SPLIT // WORD) + tl.arange(0, SPLIT // WORD)
    place = b.to(tl.int64)[:, None] * mark_stride + word[None, :]
    tl.store(mark_ptr + place, tl.sum(marks, 2), mask=(b[:, None] < B) & (word[None, :] >= 0))
    count = tl.sum(keep.to(tl.int32), 1)
    tl.store(counts_ptr + b.to(tl.int64) * counts_stride + split, count, mask=b < B)
    tl.atomic_add(count_ptr + b, count, mask=b < B, sem="relaxed")


@triton.jit
def _write_parts(p_ptr, p, place, part_stride, inside):
    """p in 0..1 as two float16 of 2^15 p, so that small weights stay normal numbers, or as three bfloat16."""
    if p_ptr.dtype.element_ty == tl.float16:
        scaled = p * 32768.0
        high = scaled.to(tl.float16)
        tl.store(p_ptr + place, high, mask=inside)
        tl.store(p_ptr + part_stride + place, (scaled - high.to(tl.float32)).to(tl.float16), mask=inside)
    else:
        p0, p1, p2 = three_parts(p)
        tl.store(p_ptr + place, p0, mask=inside)
        tl.store(p_ptr + part_stride + place, p1, mask=inside)
        tl.store(p_ptr + 2 * part_stride + place, p2, mask=inside)


@triton.jit
def weighed(numbers_ptr, count_ptr, b, B, most):
    """Whether the weighted sums of queries b are wanted: not where few rows count, or the logits are too coarse."""
    hopeless = tl.load(numbers_ptr + 7 * B + b, mask=b < B, other=1.0)
    return (hopeless == 0) & (tl.load(count_ptr + b, mask=b < B, other=0) > most)


@triton.jit
def weighted_sum_kernel(
    p_ptr, counts_ptr, numbers_ptr, count_ptr, rows_ptr, out_ptr, B, C, d, part_stride, counts_stride, most,
    SPLIT: tl.constexpr, STEP: tl.constexpr, BB: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """out[s, b] = sum over rows i of split s of p[b, i] v_i, [S, B, d] float32, p in the parts of `softmax_state`.

    Nothing is read or written of a split and a tile of queries where no row counts for a query whose sum is wanted.
    """
    k = tl.program_id(0) * BD + tl.arange(0, BD)
    b = tl.program_id(1) * BB + tl.arange(0, BB)
    split = tl.program_id(2)
    part_stride = tl.full((), 0, tl.int64) + part_stride
    counted = tl.load(counts_ptr + b.to(tl.int64) * counts_stride + split, mask=b < B, other=0) > 0
    if tl.max((counted & weighed(numbers_ptr, count_ptr, b, B, most)).to(tl.int32), 0) == 0:
        return
    end = tl.minimum(split * SPLIT + SPLIT, C)
    step = tl.arange(0, STEP)
    acc = tl.zeros((BB, BD), tl.float32)
    for first in range(split * SPLIT, end, STEP):
        r = first + step
        at = p_ptr + b.to(tl.int64)[:, None] * C + r[None, :]
        seen = (b[:, None] < B) & (r[None, :] < C)
        p0 = tl.load(at, mask=seen, other=0.0)  # [BB, STEP]
        p1 = tl.load(at + part_stride, mask=seen, other=0.0)
        row = rows_ptr + r.to(tl.int64)[:, None] * d + k[None, :]  # [STEP, BD]
        here = (r[:, None] < C) & (k[None, :] < d)
        s = tl.zeros((BB, BD), tl.float32)
        if rows_ptr.dtype.element_ty == tl.uint8:
            # What lies outside counts for nothing: its weights are 0, or its sums are not kept.
            u = tl.load(row, mask=here, other=0)
            # 0x6400 | u is the float16 1024 + u: cheaper than a conversion, and exact.
            v = (u.to(tl.uint16) | 0x6400).to(tl.float16, bitcast=True) - 1152.0
            s = product(p0, v.to(tl.float16), product(p1, v.to(tl.float16), s)) * (1 / 32768.0)
        elif rows_ptr.dtype.element_ty == tl.float16:
            v = tl.load(row, mask=here, other=0.0)
            s = product(p0, v, product(p1, v, s)) * (1 / 32768.0)
        else:
            p2 = tl.load(at + 2 * part_stride, mask=seen, other=0.0)
            if rows_ptr.dtype.element_ty == tl.bfloat16:
                v = tl.load(row, mask=here, other=0.0)
                s = product(p0, v, product(p1, v, product(p2, v, s)))
            else:
                x0, x1, x2 = three_parts(tl.load(row, mask=here, other=0.0))
                s = product(p0, x2, product(p1, x1, product(p2, x0, s)))
                s = product(p0, x0, product(p0, x1, product(p1, x0, s)))
        # Not s as an accumulator carried on: tensor cores cut bits off where this addition rounds to the nearest.
        acc += s
    out = out_ptr + (split.to(tl.int64) * B + b)[:, None] * d + k[None, :]
    tl.store(out, acc, mask=(b[:, None] < B) & (k[None, :] < d))


_weighted_sum = {stored: configured(configs)(weighted_sum_kernel) for stored, configs in WEIGHTED_SUM.items()}


def splits(count: int) -> int:
    """How many splits `count` rows make."""
    return triton.cdiv(count, SPLIT)


@dataclass(frozen=True)
class Marks:
    """Which rows may count for which queries: a bit each, int32 [B, S SPLIT / WORD]; how many of each split, [B, S]."""

    bits: Tensor
    counts: Tensor

    @staticmethod
    def empty(batch: int, n: int, device: torch.device) -> "Marks":
        pieces = splits(n)
        bits = torch.empty(batch, pieces * (SPLIT // WORD), dtype=torch.int32, device=device)
        return Marks(bits, torch.empty(batch, pieces, dtype=torch.int32, device=device))

    def after(self, start: int) -> "Marks":
        """Of the rows from `start` on, which is where a split begins."""
        return Marks(self.bits[:, start // WORD :], self.counts[:, start // SPLIT :])


def softmax(
    logits: Tensor, data: Prepared, chunk: Chunk, queries: Queries, marks: Marks, cut: float
) -> tuple[Tensor, Tensor]:
    """(state [STATE, S, B] float64, weights in parts [PARTS, B, C]) of logits [B, C] of a chunk; see `softmax_state`.

    The chunk's bias is in the logits: only its weighted mean is wanted here.
    """
    (batch, count), rows, seen = logits.shape, chunk.rows, chunk.seen
    pieces = splits(count)
    parts, dtype = PARTS[data.rows.dtype]
    half = data.half[rows]
    state = torch.empty(STATE, pieces, batch, dtype=torch.float64, device=logits.device)
    weights = torch.empty(parts, batch, count, dtype=dtype, device=logits.device)
    softmax_state[(pieces, triton.cdiv(batch, _QUERIES))](
        logits, half, data.away[rows], seen.bias_or(half), seen.exclude_or(half), queries.numbers, data.facts,
        queries.best, state, weights, marks.bits, marks.counts, queries.count,
        batch, count, pieces * batch, seen.stride, batch * count,
        marks.bits.stride(0), marks.counts.stride(0), seen.start, cut,
        BIAS=seen.kind, EXCLUDE=seen.exclude is not None, BB=_QUERIES, SPLIT=SPLIT, WORD=WORD, num_warps=_WARPS,
        enable_fp_fusion=True,
    )  # fmt: skip
    return state, weights


def weighted_sum(weights: Tensor, rows: Tensor, queries: Queries, marks: Marks, most: int) -> Tensor:
    """sums [S, B, d] float32 of weights in parts [PARTS, B, C] over rows [C, d]; see `weighted_sum_kernel`.

    most: rows that may count up to which a query is left out.
    """
    _, batch, count = weights.shape
    d = rows.shape[1]
    sums = torch.empty(splits(count), batch, d, dtype=torch.float32, device=rows.device)

    def grid(tiles: dict[str, int]) -> tuple[int, int, int]:
        return triton.cdiv(d, tiles["BD"]), triton.cdiv(batch, tiles["BB"]), splits(count)

    sizes = {"B": batch, "C": count, "d": d, "part_stride": batch * count, "counts_stride": marks.counts.stride(0)}
    sizes |= {"most": most, "SPLIT": SPLIT, "STEP": STEP, "enable_fp_fusion": True}
    _weighted_sum[rows.dtype][grid](weights, marks.counts, queries.numbers, queries.count, rows, sums, **sizes)
    return sums
