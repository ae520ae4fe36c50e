"""The second product: softmax weights times rows, on tensor cores, one partial sum per group of splits of SPLIT rows.

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
_SUMS = 2**24  # numbers in the partial sums: some hundreds of programs where queries are many, a GPU's fill


@triton.jit
def softmax_state(
    l_ptr, half_ptr, away_ptr, bias_ptr, exclude_ptr, numbers_ptr, facts_ptr, best_ptr, state_ptr, p_ptr, mark_ptr,
    counts_ptr, count_ptr, B, C, l_stride, stride, bias_stride, part_stride, mark_stride, counts_stride, start, cut,
    BIAS: tl.constexpr, EXCLUDE: tl.constexpr, BB: tl.constexpr, SPLIT: tl.constexpr, WORD: tl.constexpr,
):  # fmt: skip
    """state [STATE, S, B] float64 of logits l [B, C], and the weights p = exp(l - best) in parts [PARTS, B, S SPLIT].

    One program per split and BB queries; logits of queries are l_stride apart, stride = S B, part_stride = B S SPLIT.
    A row may count for a query if its logit, with the error it may have, reaches the best one's least value - cut.
    Those are marked, a bit each, [B, S SPLIT / WORD], and counted, [B, S] and in all [B]; the others have weight 0.
    BIAS, EXCLUDE: as for `logits_bytes`.
    """
    split = tl.program_id(0)
    b = tl.program_id(1) * BB + tl.arange(0, BB)
    r = split * SPLIT + tl.arange(0, SPLIT)
    inside = (b[:, None] < B) & (r[None, :] < C)
    part_stride = tl.full((), 0, tl.int64) + part_stride
    place = b.to(tl.int64)[:, None] * l_stride + r[None, :]
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
    place = b.to(tl.int64)[:, None] * (tl.num_programs(0) * SPLIT) + r[None, :]
    _write_parts(p_ptr, tl.where(keep, weight, 0.0), place, part_stride, (b[:, None] < B) & (r[None, :] >= 0))
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
    p_ptr, counts_ptr, numbers_ptr, count_ptr, rows_ptr, out_ptr, summed_ptr,
    B, C, d, part_stride, counts_stride, most, per_group,
    SPLIT: tl.constexpr, STEP: tl.constexpr, BB: tl.constexpr, BD: tl.constexpr, SEVERAL: tl.constexpr,
):  # fmt: skip
    """out[g, b] = sum over rows i of group g of p[b, i] v_i, [G, B, d], p in the parts of `softmax_state`.

    A group is a split, and out float32; or, with SEVERAL, `per_group` splits in a row, whose sums are added in float64.
    Nothing is read or written of a split and a tile of queries where no row counts for a query whose sum is wanted.
    summed [G, B] int8 says whether out has a sum of a group and a query.
    """
    k = tl.program_id(0) * BD + tl.arange(0, BD)
    b = tl.program_id(1) * BB + tl.arange(0, BB)
    group = tl.program_id(2)
    part_stride = tl.full((), 0, tl.int64) + part_stride
    wanted = weighed(numbers_ptr, count_ptr, b, B, most)
    summed = tl.zeros((BB,), tl.int32)
    if SEVERAL:
        if tl.max(wanted.to(tl.int32), 0) > 0:
            for split in range(group * per_group, tl.minimum((group + 1) * per_group, tl.cdiv(C, SPLIT))):
                summed = _add_split(
                    p_ptr, counts_ptr, rows_ptr, out_ptr, summed, wanted, group, split, b, k, B, C, d, part_stride,
                    counts_stride, SPLIT, STEP, BB, BD, SEVERAL,
                )  # fmt: skip
    else:
        summed = _add_split(
            p_ptr, counts_ptr, rows_ptr, out_ptr, summed, wanted, group, group, b, k, B, C, d, part_stride,
            counts_stride, SPLIT, STEP, BB, BD, SEVERAL,
        )  # fmt: skip
    if tl.program_id(0) == 0:
        tl.store(summed_ptr + group.to(tl.int64) * B + b, summed.to(tl.int8), mask=b < B)


@triton.jit
def _add_split(
    p_ptr, counts_ptr, rows_ptr, out_ptr, summed, wanted, group, split, b, k, B, C, d, part_stride, counts_stride,
    SPLIT: tl.constexpr, STEP: tl.constexpr, BB: tl.constexpr, BD: tl.constexpr, SEVERAL: tl.constexpr,
):  # fmt: skip
    """Writes the sum of a split to out[group], or adds it to what `summed` [BB] says is there; returns summed."""
    counted = tl.load(counts_ptr + b.to(tl.int64) * counts_stride + split, mask=b < B, other=0) > 0
    counted = (counted & wanted).to(tl.int32)
    some = tl.max(counted, 0)
    if some > 0:
        sum_ = _split_sum(p_ptr, rows_ptr, b, k, split, B, C, d, part_stride, SPLIT, STEP, BB, BD)
        if SEVERAL:
            group *= some  # 1, which the compiler does not know: it would find addresses beforehand, and hold them
        out = out_ptr + (group.to(tl.int64) * B + b)[:, None] * d + k[None, :]
        kept = (b[:, None] < B) & (k[None, :] < d)
        sum_ = sum_.to(out_ptr.dtype.element_ty)
        if SEVERAL:
            # In memory: beside one in float32, registers do not hold a sum in float64.
            sum_ += tl.load(out, mask=kept & (summed > 0)[:, None], other=0.0)
        tl.store(out, sum_, mask=kept)
        if SEVERAL:
            tl.debug_barrier()  # before other threads of this program read it
    return summed | counted


@triton.jit
def _split_sum(
    p_ptr, rows_ptr, b, k, split, B, C, d, part_stride,
    SPLIT: tl.constexpr, STEP: tl.constexpr, BB: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """The sum of one split's weighted rows for queries b and columns k, [BB, BD] float32."""
    width = tl.cdiv(C, SPLIT) * SPLIT
    end = tl.minimum(split * SPLIT + SPLIT, C)
    step = tl.arange(0, STEP)
    # The last row is read again beyond it: there weights are 0.
    weights = p_ptr + b.to(tl.int64)[:, None] * width + step[None, :]
    asked = b[:, None] < B
    here = k[None, :] < d
    acc = tl.zeros((BB, BD), tl.float32)
    for first in range(split * SPLIT, end, STEP):
        at = weights + first
        p0 = tl.load(at, mask=asked, other=0.0)  # [BB, STEP]
        p1 = tl.load(at + part_stride, mask=asked, other=0.0)
        row = rows_ptr + tl.minimum(first + step, C - 1).to(tl.int64)[:, None] * d + k[None, :]  # [STEP, BD]
        s = tl.zeros((BB, BD), tl.float32)
        if rows_ptr.dtype.element_ty == tl.uint8:
            u = tl.load(row, mask=here, other=0)
            # 0x6400 | u is the float16 1024 + u: cheaper than a conversion, and exact.
            v = (u.to(tl.uint16) | 0x6400).to(tl.float16, bitcast=True) - 1152.0
            s = product(p0, v.to(tl.float16), product(p1, v.to(tl.float16), s)) * (1 / 32768.0)
        elif rows_ptr.dtype.element_ty == tl.float16:
            v = tl.load(row, mask=here, other=0.0)
            s = product(p0, v, product(p1, v, s)) * (1 / 32768.0)
        else:
            p2 = tl.load(at + 2 * part_stride, mask=asked, other=0.0)
            if rows_ptr.dtype.element_ty == tl.bfloat16:
                v = tl.load(row, mask=here, other=0.0)
                s = product(p0, v, product(p1, v, product(p2, v, s)))
            else:
                x0, x1, x2 = three_parts(tl.load(row, mask=here, other=0.0))
                s = product(p0, x2, product(p1, x1, product(p2, x0, s)))
                s = product(p0, x0, product(p0, x1, product(p1, x0, s)))
        # Not s as an accumulator carried on: tensor cores cut bits off where this addition rounds to the nearest.
        acc += s
    return acc


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
    """(state [STATE, S, B] float64, weights in parts [PARTS, B, S SPLIT]) of logits [B, C] of a chunk.

    See `softmax_state`. Weights are 0 beyond the last row, so that those of every query begin where wide loads may.
    The chunk's bias is in the logits: only its weighted mean is wanted here.
    """
    (batch, count), rows, seen = logits.shape, chunk.rows, chunk.seen
    pieces = splits(count)
    parts, dtype = PARTS[data.rows.dtype]
    half = data.half[rows]
    state = torch.empty(STATE, pieces, batch, dtype=torch.float64, device=logits.device)
    weights = torch.empty(parts, batch, pieces * SPLIT, dtype=dtype, device=logits.device)
    softmax_state[(pieces, triton.cdiv(batch, _QUERIES))](
        logits, half, data.away[rows], seen.bias_or(half), seen.exclude_or(half), queries.numbers, data.facts,
        queries.best, state, weights, marks.bits, marks.counts, queries.count,
        batch, count, logits.stride(0), pieces * batch, seen.stride, batch * pieces * SPLIT,
        marks.bits.stride(0), marks.counts.stride(0), seen.start, cut,
        BIAS=seen.kind, EXCLUDE=seen.exclude is not None, BB=_QUERIES, SPLIT=SPLIT, WORD=WORD, num_warps=_WARPS,
        enable_fp_fusion=True,
    )  # fmt: skip
    return state, weights


@dataclass(frozen=True)
class Sums:
    """Weighted rows, summed up by groups of `per_group` splits: see `weighted_sum_kernel`.

    sums    [G, B, d] float32, or float64 where groups are several splits
    summed  [G, B] int8: of which groups and queries there is a sum
    """

    sums: Tensor
    summed: Tensor
    per_group: int

    @staticmethod
    def empty(count: int, batch: int, d: int, device: torch.device) -> "Sums":
        """For `count` rows: at most _SUMS numbers, or one group."""
        most = max(1, _SUMS // (batch * d))
        per_group = triton.cdiv(splits(count), most)
        groups = triton.cdiv(splits(count), per_group)
        dtype = torch.float32 if per_group == 1 else torch.float64
        return Sums(
            torch.empty(groups, batch, d, dtype=dtype, device=device),
            torch.empty(groups, batch, dtype=torch.int8, device=device),
            per_group,
        )


def weighted_sum(weights: Tensor, rows: Tensor, queries: Queries, marks: Marks, most: int) -> Sums:
    """Sums of weights in parts [PARTS, B, S SPLIT] over rows [C, d].

    most: rows that may count up to which a query is left out.
    """
    _, batch, width = weights.shape
    count, d = rows.shape
    found = Sums.empty(count, batch, d, rows.device)

    def grid(tiles: dict[str, int]) -> tuple[int, int, int]:
        return triton.cdiv(d, tiles["BD"]), triton.cdiv(batch, tiles["BB"]), len(found.sums)

    sizes = {"B": batch, "C": count, "d": d, "part_stride": batch * width, "counts_stride": marks.counts.stride(0)}
    sizes |= {"most": most, "per_group": found.per_group, "SEVERAL": found.per_group > 1}
    sizes |= {"SPLIT": SPLIT, "STEP": STEP, "enable_fp_fusion": True}
    _weighted_sum[rows.dtype][grid](
        weights, marks.counts, queries.numbers, queries.count, rows, found.sums, found.summed, **sizes
    )
    return found
