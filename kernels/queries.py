"""Queries as sums of numbers that tensor cores multiply exactly, with what is left over known: one launch."""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from geodiff.kernels.bounds import CUT, DEPTH, DEVIATIONS, LOG_SHARE, products
from geodiff.kernels.configs import FLUSH, INTERPRETED
from geodiff.kernels.prepared import Prepared

#: What `Queries.numbers` holds, by place.
INV, SCALE, RESIDUAL, STEP, ROW_ERROR, BASE_ERROR, NOISE, HOPELESS = range(8)
NUMBERS = 8
#: Digits of a query of uint8 data: room for so many, of which LEAST_DIGITS are enough where the data vary little.
DIGITS, LEAST_DIGITS = 4, 3
#: Values of `path` while nothing is decided, and after. kernels/README.md
OPEN, SCREENED, DENSE, DENSE_FINE, EXACT = -1, 0, 1, 2, 3

_BLOCK = 2048 if INTERPRETED else 1024


@dataclass(frozen=True)
class Queries:
    """x = scale * sum_p weight_p parts[p] + delta, p = 0..P-1; weight_p = 256^(P-1-p) for int8 digits, 1 for floats.

    centred [B, d] float64  x in centred units
    parts   [P, B, d]       int8, P = 4, the first ones 0 where fewer are enough; or float16 or bfloat16, P = 3
    numbers [8, B] float64
        INV         1 / sigma^2
        SCALE       as above
        RESIDUAL    |delta|
        STEP        standard deviation of one coordinate of delta where it was rounded at random, else 0
        ROW_ERROR, BASE_ERROR = a, b: the logit of row i is off by at most a away_i + b, a common constant aside
        NOISE       standard deviation of a logit's error where float32 sums make it, else 0
        HOPELESS    1 where log_prob could not be had from such logits, whatever the weights
    digits  [B] int32       how many of the parts are in use
    best    [B] float64     the largest logit so far; -inf
    count   [B] int32       rows so far that may count; 0
    path    [B] int8        which pass answers; OPEN
    """

    centred: Tensor
    parts: Tensor
    numbers: Tensor
    digits: Tensor
    best: Tensor
    count: Tensor
    path: Tensor


@triton.jit
def _parts(x, out, part_stride, inside, scale, dither, units, BYTES: tl.constexpr):
    """Writes the parts of x to out, out + part_stride, ...; returns what they leave over, in units of `scale`."""
    if BYTES:
        exact = x / scale
        rounded = tl.floor(exact + dither)
        rounded = tl.minimum(tl.maximum(rounded, -units), units)
        value = rounded.to(tl.int64)
        low = ((value + 128) & 255) - 128
        tl.store(out + 3 * part_stride, low.to(tl.int8), mask=inside)
        value = (value - low) >> 8
        low = ((value + 128) & 255) - 128
        tl.store(out + 2 * part_stride, low.to(tl.int8), mask=inside)
        value = (value - low) >> 8
        low = ((value + 128) & 255) - 128
        tl.store(out + part_stride, low.to(tl.int8), mask=inside)
        tl.store(out, ((value - low) >> 8).to(tl.int8), mask=inside)
        return exact - rounded
    else:
        left = x / scale
        for part in tl.static_range(3):
            # By way of float32: what that rounds, the next part takes up.
            number = left.to(tl.float32).to(out.dtype.element_ty)
            tl.store(out + part * part_stride, number, mask=inside)
            left -= number.to(tl.float32).to(tl.float64)
        return left


@triton.jit
def prepare_kernel(
    x_ptr, sigma_ptr, dither_ptr, facts_ptr, centred_ptr, parts_ptr, numbers_ptr, digits_ptr, best_ptr, count_ptr,
    path_ptr, B, n, d, x_stride, part_stride, shift, unit, tol, within, terms,
    BYTES: tl.constexpr, LEAST_DIGITS: tl.constexpr, BD: tl.constexpr, FLUSH: tl.constexpr, CUT: tl.constexpr,
    DEVIATIONS: tl.constexpr, LOG_SHARE: tl.constexpr,
):  # fmt: skip
    """One query per program: see `Queries`. within, terms: of the error of float32 sums, as `prepare` has them."""
    b = tl.program_id(0).to(tl.int64)
    part_stride = tl.full((), 0, tl.int64) + part_stride  # a few of them may exceed 2^31
    lane = tl.arange(0, BD)
    none = tl.full((), 0.0, tl.float64)
    # Arguments that are 1 come as constants, floats in float32.
    unit, shift, tol, numbers, rows = none + unit, none + shift, none + tol, none + d, none + n
    norm, least = tl.load(facts_ptr + 1), tl.load(facts_ptr + 2)
    spread, in_range = tl.load(facts_ptr + 3), tl.load(facts_ptr + 4)
    top, square, piece, rest = none, none, none, none
    for first in range(0, d, BD):
        k = first + lane
        x = tl.load(x_ptr + b * x_stride + k, mask=k < d, other=0.0).to(tl.float64) * unit - shift
        x = tl.where(k < d, x, 0.0)
        tl.store(centred_ptr + b * d + k, x, mask=k < d)
        top = tl.maximum(top, tl.max(tl.abs(x), 0))
        squares = tl.sum(tl.reshape(x * x, (BD // FLUSH, FLUSH)), 1)
        square += tl.sum(squares, 0)
        piece = tl.maximum(piece, tl.max(squares, 0))
    top = tl.maximum(top, 1e-300)
    sigma = tl.load(sigma_ptr + b) * unit
    inv = 1 / (sigma * sigma)
    count = tl.full((), LEAST_DIGITS, tl.int32)
    units = tl.full((), 127.0 * 256 ** (LEAST_DIGITS - 1), tl.float64)
    # A power of two, so nothing is rounded: values near 2^8 leave float16 room below for the smaller parts.
    scale = (top.to(tl.int64, bitcast=True) & 0x7FF0000000000000).to(tl.float64, bitcast=True) / 256
    if BYTES:
        # What fewer digits would move r by, were the posterior as wide as the data, or as the noise allows: a guess,
        # which costs time where it is wrong and never accuracy.
        wide = tl.minimum(spread * inv, numbers)
        enough = DEVIATIONS * top / units * 0.41 * wide <= 0.3 * tol * least
        count = tl.where(enough, count, LEAST_DIGITS + 1)
        units = tl.where(enough, units, units * 256)
        scale = top / units
    for first in range(0, d, BD):
        k = first + lane
        x = tl.load(x_ptr + b * x_stride + k, mask=k < d, other=0.0).to(tl.float64) * unit - shift
        x = tl.where(k < d, x, 0.0)
        dither = tl.load(dither_ptr + k, mask=k < d, other=0.0)
        left = _parts(x, parts_ptr + b * d + k, part_stride, k < d, scale, dither, units, BYTES)
        rest += tl.sum(left * left, 0)
    residual = tl.sqrt(rest) * scale
    size = tl.sqrt(square) * norm * inv
    base = 1e-14 * size
    noise = none
    if not BYTES:
        base = tl.where(in_range > 0, base + terms * CUT * size, float("inf"))
        noise = within * CUT * tl.sqrt(piece) * norm * inv
    step = scale / 2.449489742783178 if BYTES else none  # by sqrt(6)
    hopeless = DEVIATIONS * noise > LOG_SHARE * tl.sqrt(rows)
    tl.store(numbers_ptr + b, inv)
    tl.store(numbers_ptr + B + b, scale)
    tl.store(numbers_ptr + 2 * B + b, residual)
    tl.store(numbers_ptr + 3 * B + b, step)
    tl.store(numbers_ptr + 4 * B + b, residual * inv)
    tl.store(numbers_ptr + 5 * B + b, base)
    tl.store(numbers_ptr + 6 * B + b, noise)
    tl.store(numbers_ptr + 7 * B + b, hopeless.to(tl.float64))
    tl.store(digits_ptr + b, count)
    tl.store(best_ptr + b, float("-inf"))
    tl.store(count_ptr + b, 0)
    tl.store(path_ptr + b, -1)


def prepare(
    data: Prepared, x: Tensor, sigma: Tensor, *, n: int, tol: float, dithered: bool = True, path: Tensor | None = None
) -> Queries:
    """x [B, d] in model space, columns side by side, and sigma [B] float64, made ready for `n` of the rows.

    tol: what is allowed: fewer digits where that permits. dithered: digits are rounded up or down at random, by a fixed
    pattern, so that the error has mean zero; else to the nearest. path: int8 [B], to be written into.
    """
    batch, d = x.shape
    device, stored = data.rows.device, data.rows.dtype
    bytes_ = stored == torch.uint8
    dtype = torch.int8 if bytes_ else torch.float16 if stored == torch.float16 else torch.bfloat16
    found = Queries(
        centred=torch.empty(batch, d, dtype=torch.float64, device=device),
        parts=torch.empty(DIGITS if bytes_ else 3, batch, d, dtype=dtype, device=device),
        numbers=torch.empty(NUMBERS, batch, dtype=torch.float64, device=device),
        digits=torch.empty(batch, dtype=torch.int32, device=device),
        best=torch.empty(batch, dtype=torch.float64, device=device),
        count=torch.empty(batch, dtype=torch.int32, device=device),
        path=torch.empty(batch, dtype=torch.int8, device=device) if path is None else path,
    )
    sums = products(stored) * FLUSH / DEPTH
    prepare_kernel[(batch,)](
        x, sigma, data.dither if dithered else data.nearest, data.facts, found.centred, found.parts, found.numbers,
        found.digits, found.best, found.count, found.path, batch, n, d, x.stride(0), batch * d,
        data.shift, data.unit, tol, sums**0.5, sums + 4,
        BYTES=bytes_, LEAST_DIGITS=LEAST_DIGITS, BD=_BLOCK, FLUSH=FLUSH, CUT=CUT, DEVIATIONS=DEVIATIONS,
        LOG_SHARE=LOG_SHARE, num_warps=8, enable_fp_fusion=True,
    )  # fmt: skip
    return found
