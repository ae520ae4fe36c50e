"""The first product: <x, v_i> for a chunk of rows, on tensor cores, and the logits made from it in its epilogue."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from geodiff.kernels.configs import INT32_COLUMNS, LOGITS_BYTES, LOGITS_FLOATS, WIDEN, configured
from geodiff.kernels.queries import SCALE, Queries
from geodiff.kernels.seen import Seen


@triton.jit
def product(a, b, acc):
    """acc + a b in float32, for float operands."""
    if WIDEN:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc)
    return tl.dot(a, b, acc)


@triton.jit
def three_parts(x):
    """float32 x as a sum of three bfloat16: 24 bits, so nothing is lost."""
    high = x.to(tl.bfloat16)
    rest = x - high.to(tl.float32)
    middle = rest.to(tl.bfloat16)
    return high, middle, (rest - middle.to(tl.float32)).to(tl.bfloat16)


@triton.jit
def _tile(
    half_ptr, bias_ptr, exclude_ptr, scale_ptr, inv_ptr, best_ptr, out_ptr, total, r, b, B, C, out_stride, bias_stride,
    start, BIAS: tl.constexpr, EXCLUDE: tl.constexpr,
):  # fmt: skip
    """out[b, r] = (scale_b total - half_r) inv_b + bias_r, in float64; total [BN, BB]; best[b] = max(best[b], out).

    EXCLUDE: -inf for row exclude_b - start.
    """
    inside = (r[:, None] < C) & (b[None, :] < B)
    scale = tl.load(scale_ptr + b, mask=b < B, other=0.0)[None, :]
    inv = tl.load(inv_ptr + b, mask=b < B, other=0.0)[None, :]
    half = tl.load(half_ptr + r, mask=r < C, other=0.0)[:, None]
    logit = (total * scale - half) * inv  # [BN, BB]
    if BIAS == 1:
        logit += tl.load(bias_ptr + r, mask=r < C, other=0.0)[:, None]
    elif BIAS == 2:
        logit += tl.load(bias_ptr + b.to(tl.int64)[None, :] * bias_stride + r[:, None], mask=inside, other=0.0)
    if EXCLUDE:
        gone = tl.load(exclude_ptr + b, mask=b < B, other=-1)[None, :] - start
        logit = tl.where(r[:, None] == gone, float("-inf"), logit)
    tl.store(out_ptr + b.to(tl.int64)[None, :] * out_stride + r[:, None], logit, mask=inside)
    # What overflowed says nothing.
    known = tl.where(inside & (tl.abs(logit) < float("inf")), logit, float("-inf"))
    tl.atomic_max(best_ptr + b, tl.max(known, 0), mask=b < B, sem="relaxed")


@triton.jit
def _three_digits(
    row, pair, last, k, d, LONG: tl.constexpr, BN: tl.constexpr, BB: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """<x, v> in units of the last digit, [BN, BB] float64, from two digits at `pair`, [BD, 2 BB], and one at `last`.

    The two digits of a query are columns side by side of one product. LONG: d may overflow int32.
    """
    pairs, s2 = tl.zeros((BN, 2 * BB), tl.int32), tl.zeros((BN, BB), tl.int32)
    total = tl.zeros((BN, BB), tl.float64)
    for first in range(0, d, BD):
        here = k[:, None] < d - first
        v = _signed(row + first, k, d - first)
        pairs = tl.dot(v, tl.load(pair + first, mask=here, other=0), pairs, out_dtype=tl.int32)
        s2 = tl.dot(v, tl.load(last + first, mask=here, other=0), s2, out_dtype=tl.int32)
        if LONG:
            s0, s1 = tl.split(tl.reshape(pairs, (BN, BB, 2)))
            total += _joined(s0, s1, s2)
            pairs, s2 = tl.zeros_like(pairs), tl.zeros_like(s2)
    if not LONG:
        s0, s1 = tl.split(tl.reshape(pairs, (BN, BB, 2)))
        total = _joined(s0, s1, s2)
    return total


@triton.jit
def _four_digits(
    row, last, k, d, part_stride, LONG: tl.constexpr, BN: tl.constexpr, BB: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """The same of four digits, `part_stride` apart, one at a time: registers do not hold more."""
    zero = tl.zeros((BN, BB), tl.int32)
    s0, s1, s2, s3 = zero, zero, zero, zero
    total = tl.zeros((BN, BB), tl.float64)
    for first in range(0, d, BD):
        here, at = k[:, None] < d - first, last + first
        v = _signed(row + first, k, d - first)
        s0 = tl.dot(v, tl.load(at - 3 * part_stride, mask=here, other=0), s0, out_dtype=tl.int32)
        s1 = tl.dot(v, tl.load(at - 2 * part_stride, mask=here, other=0), s1, out_dtype=tl.int32)
        s2 = tl.dot(v, tl.load(at - part_stride, mask=here, other=0), s2, out_dtype=tl.int32)
        s3 = tl.dot(v, tl.load(at, mask=here, other=0), s3, out_dtype=tl.int32)
        if LONG:
            total += _joined(s0, s1, s2) * 256 + s3.to(tl.float64)
            s0, s1, s2, s3 = zero, zero, zero, zero
    if not LONG:
        total = _joined(s0, s1, s2) * 256 + s3.to(tl.float64)
    return total


@triton.jit
def _signed(row, k, left):
    """u - 128 as int8 of bytes u [BN, BD]; columns beyond the last count for nothing: they meet digits 0."""
    return (tl.load(row, mask=k[None, :] < left, other=0) ^ 128).to(tl.int8, bitcast=True)


@triton.jit
def _joined(s0, s1, s2):
    """The digits' sums as one number, exact in float64."""
    return (s0.to(tl.float64) * 256 + s1.to(tl.float64)) * 256 + s2.to(tl.float64)


@triton.jit
def logits_bytes(
    q_ptr, rows_ptr, half_ptr, bias_ptr, exclude_ptr, scale_ptr, inv_ptr, digits_ptr, best_ptr, out_ptr,
    B, C, d, part_stride, out_stride, bias_stride, start, LONG: tl.constexpr, BIAS: tl.constexpr, EXCLUDE: tl.constexpr,
    BN: tl.constexpr, BB: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """uint8 rows [C, d] times digits q [4, B, d]: exact integers in int32. digits [B]: how many of the four are used.

    BIAS: 0 none, 1 for all queries [C], 2 one row for each. EXCLUDE: each query leaves out row exclude_b - start.
    """
    b = tl.program_id(0) * BB + tl.arange(0, BB)
    r = tl.program_id(1) * BN + tl.arange(0, BN)
    k = tl.arange(0, BD)
    # Beyond the last row and query it is read again, and its sums are not kept: no load has to be masked for it.
    row = rows_ptr + tl.minimum(r, C - 1).to(tl.int64)[:, None] * d + k[None, :]  # [BN, BD]
    part_stride = tl.full((), 0, tl.int64) + part_stride  # a few of them may exceed 2^31
    each = tl.arange(0, 2 * BB)
    of = tl.minimum(tl.program_id(0) * BB + each // 2, B - 1).to(tl.int64)
    pair = q_ptr + (of * d + (1 + each % 2) * part_stride)[None, :] + k[:, None]  # [BD, 2 BB]
    last = q_ptr + (tl.minimum(b, B - 1).to(tl.int64) * d + 3 * part_stride)[None, :] + k[:, None]  # [BD, BB]
    total = tl.zeros((BN, BB), tl.float64)
    if tl.max(tl.load(digits_ptr + b, mask=b < B, other=0), 0) > 3:
        total = _four_digits(row, last, k, d, part_stride, LONG, BN, BB, BD)
    else:
        total = _three_digits(row, pair, last, k, d, LONG, BN, BB, BD)
    _tile(
        half_ptr, bias_ptr, exclude_ptr, scale_ptr, inv_ptr, best_ptr, out_ptr, total, r, b, B, C, out_stride,
        bias_stride, start, BIAS, EXCLUDE,
    )  # fmt: skip


@triton.jit
def logits_floats(
    q_ptr, rows_ptr, half_ptr, bias_ptr, exclude_ptr, scale_ptr, inv_ptr, best_ptr, out_ptr,
    B, C, d, part_stride, out_stride, bias_stride, start, BIAS: tl.constexpr, EXCLUDE: tl.constexpr,
    BN: tl.constexpr, BB: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Float rows [C, d] times q [3, B, d]: float32 within BD columns, float64 beyond; small terms are added first.

    BIAS, EXCLUDE: as for bytes.
    """
    b = tl.program_id(0) * BB + tl.arange(0, BB)
    r = tl.program_id(1) * BN + tl.arange(0, BN)
    k = tl.arange(0, BD)
    # As for bytes: beyond the last row and query it is read again.
    row = rows_ptr + tl.minimum(r, C - 1).to(tl.int64)[:, None] * d + k[None, :]  # [BN, BD]
    query = q_ptr + tl.minimum(b, B - 1).to(tl.int64)[None, :] * d + k[:, None]  # [BD, BB]
    part_stride = tl.full((), 0, tl.int64) + part_stride  # a few of them may exceed 2^31
    total = tl.zeros((BN, BB), tl.float64)
    for first in range(0, d, BD):
        left = d - first
        here = k[:, None] < left
        x = tl.load(row + first, mask=k[None, :] < left, other=0.0)
        q0 = tl.load(query + first, mask=here, other=0.0)
        q1 = tl.load(query + first + part_stride, mask=here, other=0.0)
        q2 = tl.load(query + first + 2 * part_stride, mask=here, other=0.0)
        s = tl.zeros((BN, BB), tl.float32)
        if rows_ptr.dtype.element_ty == tl.float32:
            x0, x1, x2 = three_parts(x)
            s = product(x2, q0, s)
            s = product(x1, q1, s)
            s = product(x0, q2, s)
            s = product(x1, q0, s)
            s = product(x0, q1, s)
            s = product(x0, q0, s)
        else:
            s = product(x, q2, s)
            s = product(x, q1, s)
            s = product(x, q0, s)
        total += s.to(tl.float64)
    _tile(
        half_ptr, bias_ptr, exclude_ptr, scale_ptr, inv_ptr, best_ptr, out_ptr, total, r, b, B, C, out_stride,
        bias_stride, start, BIAS, EXCLUDE,
    )  # fmt: skip


_bytes = configured(LOGITS_BYTES)(logits_bytes)
_floats = configured(LOGITS_FLOATS)(logits_floats)


def logits(queries: Queries, rows: Tensor, half: Tensor, seen: Seen, inv: Tensor, out: Tensor) -> None:
    """out[b, i] = (<x_b, v_i> - half_i) inv_b + bias_i, -inf for a row not seen; v = u - 128 for uint8, else the value.

    x [B, d] of `queries`, whose `best` [B] is raised to the largest finite one; rows [C, d]; half [C] float64; inv [B]
    float64; out [B, C] float64.
    """
    count, d = rows.shape
    batch = len(queries.centred)

    def grid(tiles: dict[str, int]) -> tuple[int, int]:
        return triton.cdiv(batch, tiles["BB"]), triton.cdiv(count, tiles["BN"])

    starts = queries.parts, rows, half, seen.bias_or(half), seen.exclude_or(half), queries.numbers[SCALE], inv
    sizes = {"B": batch, "C": count, "d": d, "part_stride": batch * d, "out_stride": out.stride(0)}
    sizes |= {"bias_stride": seen.stride, "start": seen.start}
    sizes |= {"BIAS": seen.kind, "EXCLUDE": seen.exclude is not None, "enable_fp_fusion": True}
    if rows.dtype == torch.uint8:
        sizes["LONG"] = d > INT32_COLUMNS
        _bytes[grid](*starts, queries.digits, queries.best, out, **sizes)
    else:
        _floats[grid](*starts, queries.best, out, **sizes)
