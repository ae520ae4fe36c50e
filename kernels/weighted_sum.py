"""The second product: softmax weights times rows, on tensor cores, one partial sum per split of SPLIT rows.

Each split has its own largest logit m_s and returns sums relative to it; `merge` joins the splits by log-sum-exp.
Weights are made once, in the parts that tensor cores multiply, and not anew for every tile of columns.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from geodiff.kernels.configs import SPLIT, STEP, WEIGHTED_SUM, configured
from geodiff.kernels.logits import bias_row_stride, product, three_parts

#: What is kept of a split's softmax: max m; sums of p = exp(l - m), p (l - m), p^2, p h and p c, with h_i = |v_i|^2 / 2
#: and c_i the bias (0 without one).
STATE = 6
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
    l_ptr, half_ptr, bias_ptr, floor_ptr, state_ptr, p_ptr, B, C, stride, bias_stride, part_stride,
    BIAS: tl.constexpr, BB: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """state [STATE, S, B] float64 of logits l [B, C], and the weights p = exp(l - m) in parts [PARTS, B, C].

    One program per split and BB queries; stride = S B, part_stride = B C. A split whose maximum is below a query's
    floor has weights 0 for it. BIAS: 0 none, 1 for all queries [C], 2 one row for each.
    """
    split = tl.program_id(0)
    b = tl.program_id(1) * BB + tl.arange(0, BB)
    r = split * SPLIT + tl.arange(0, SPLIT)
    inside = (b[:, None] < B) & (r[None, :] < C)
    place = b.to(tl.int64)[:, None] * C + r[None, :]
    logit = tl.load(l_ptr + place, mask=inside, other=float("-inf"))  # [BB, SPLIT]
    half = tl.load(half_ptr + r, mask=r < C, other=0.0)[None, :]
    floor = tl.load(floor_ptr + b, mask=b < B, other=float("inf"))
    m = tl.max(logit, 1)  # [BB]
    below = logit - tl.where(m == float("-inf"), 0.0, m)[:, None]  # -inf - -inf would be NaN
    weight = tl.exp(below)
    # What counts for a query must not depend on the queries beside it, for whose sake a split may be read.
    _write_parts(p_ptr, tl.where((m >= floor)[:, None], weight, 0.0), place, part_stride, inside)
    p = weight.to(tl.float64)
    out = state_ptr + split.to(tl.int64) * B + b
    tl.store(out, m.to(tl.float64), mask=b < B)
    tl.store(out + stride, tl.sum(p, 1), mask=b < B)
    tl.store(out + 2 * stride, tl.sum(p * tl.where(p > 0, below.to(tl.float64), 0.0), 1), mask=b < B)
    tl.store(out + 3 * stride, tl.sum(p * p, 1), mask=b < B)
    tl.store(out + 4 * stride, tl.sum(p * half, 1), mask=b < B)
    weighted = tl.zeros((BB,), tl.float64)
    if BIAS == 1:
        bias = tl.load(bias_ptr + r, mask=r < C, other=0.0)[None, :]
        weighted = tl.sum(p * tl.where(p > 0, bias, 0.0), 1)  # 0 times -inf would be NaN
    elif BIAS == 2:
        bias = tl.load(bias_ptr + b.to(tl.int64)[:, None] * bias_stride + r[None, :], mask=inside, other=0.0)
        weighted = tl.sum(p * tl.where(p > 0, bias, 0.0), 1)
    tl.store(out + 5 * stride, weighted, mask=b < B)


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
def weighted_sum_kernel(
    p_ptr, max_ptr, floor_ptr, rows_ptr, out_ptr, B, C, d, part_stride,
    SPLIT: tl.constexpr, STEP: tl.constexpr, BB: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """out[s, b] = sum over rows i of split s of p[b, i] v_i, [S, B, d] float32, p in the parts of `softmax_state`.

    A split whose maximum is below the floors of all queries of a tile is not read.
    """
    k = tl.program_id(0) * BD + tl.arange(0, BD)
    b = tl.program_id(1) * BB + tl.arange(0, BB)
    split = tl.program_id(2)
    m = tl.load(max_ptr + split.to(tl.int64) * B + b, mask=b < B, other=float("-inf")).to(tl.float32)
    floor = tl.load(floor_ptr + b, mask=b < B, other=float("inf"))
    end = split * SPLIT + tl.max((m >= floor).to(tl.int32), 0) * tl.minimum(SPLIT, C - split * SPLIT)
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


def weighted_sum(
    logits: Tensor, half: Tensor, floor: Tensor, rows: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(sums [S, B, d] float32, state [STATE, S, B] float64) of softmax weights of logits [B, C] over rows [C, d].

    half [C] float64; floor [B] float32: splits whose logits are all below it count as nothing. bias: what the logits
    hold of log weights, as `logits` takes it; only its weighted mean is wanted here.
    """
    batch, count = logits.shape
    d, pieces = rows.shape[1], splits(count)
    parts, dtype = PARTS[rows.dtype]
    state = torch.empty(STATE, pieces, batch, dtype=torch.float64, device=rows.device)
    weights = torch.empty(parts, batch, count, dtype=dtype, device=rows.device)
    softmax_state[(pieces, triton.cdiv(batch, _QUERIES))](
        logits, half, half if bias is None else bias, floor, state, weights,
        batch, count, pieces * batch, bias_row_stride(bias), batch * count,
        BIAS=0 if bias is None else bias.ndim, BB=_QUERIES, SPLIT=SPLIT, num_warps=_WARPS, enable_fp_fusion=True,
    )  # fmt: skip
    sums = torch.empty(pieces, batch, d, dtype=torch.float32, device=rows.device)

    def grid(tiles: dict[str, int]) -> tuple[int, int, int]:
        return triton.cdiv(d, tiles["BD"]), triton.cdiv(batch, tiles["BB"]), pieces

    named = {"B": batch, "C": count, "d": d, "part_stride": batch * count, "SPLIT": SPLIT, "STEP": STEP}
    _weighted_sum[rows.dtype][grid](weights, state[0], floor, rows, sums, **named, enable_fp_fusion=True)
    return sums, state
