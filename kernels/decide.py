"""Which pass answers a query, decided on the device; and the numbers of an answer beside the mean."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from geodiff.kernels.asked import Asked
from geodiff.kernels.bounds import DEPTH, DEVIATIONS, LOG_SHARE, ROUNDING, products
from geodiff.kernels.configs import INTERPRETED, SPLIT, STEP
from geodiff.kernels.merge import Running
from geodiff.kernels.queries import DENSE, DENSE_FINE, EXACT, LEAST_DIGITS, SCREENED


@triton.jit
def tell(told, b, B, best, total, moment, squares, biases):
    """Writes `TOLD` of query b, given the largest logit, sum p, sum p (l - best), sum p^2 and sum p bias."""
    tl.store(told + b, best + tl.log(total))
    tl.store(told + B + b, tl.log(total) - moment / total)
    tl.store(told + 2 * B + b, total * total / squares)
    tl.store(told + 3 * B + b, biases / total)


_BLOCK = 2048 if INTERPRETED else 1024


@triton.jit
def decide_kernel(
    mean_ptr, x_ptr, parts_ptr, numbers_ptr, digits_ptr, count_ptr, kept_ptr, facts_ptr, told_ptr, path_ptr,
    B, n, d, part_stride, most, cut, shift, unit, tol, cut_off, short,
    BYTES: tl.constexpr, BD: tl.constexpr, SUMMED: tl.constexpr, LEAST_DIGITS: tl.constexpr, ROUNDING: tl.constexpr,
    DEVIATIONS: tl.constexpr, LOG_SHARE: tl.constexpr,
    SCREENED: tl.constexpr, DENSE: tl.constexpr, DENSE_FINE: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """One query per program: its path, and `TOLD` where the mean of the dense pass keeps the contract.

    cut_off: what a tensor core's sums lose of a row for certain; short: what a weight loses that is too small to be
    split.
    """
    b = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BD)
    none = tl.full((), 0.0, tl.float64)
    unit, shift, tol, rows = none + unit, none + shift, none + tol, none + n
    part_stride = tl.full((), 0, tl.int64) + part_stride
    scale = tl.load(numbers_ptr + B + b)
    model, square, length, along = none, none, none, none
    for first in range(0, d, BD):
        k = first + lane
        inside = k < d
        r = tl.load(mean_ptr + b * d + k, mask=inside, other=0.0) * unit
        model += tl.sum(r * r, 0)
        r = tl.where(inside, r - shift, 0.0)
        square += tl.sum(r * r, 0)
        x = tl.load(x_ptr + b * d + k, mask=inside, other=0.0)
        length += tl.sum(x * x, 0)
        at = parts_ptr + b * d + k
        value = tl.load(at, mask=inside, other=0.0).to(tl.float64)
        for _ in tl.static_range(3 if BYTES else 2):
            at += part_stride
            value = value * (256 if BYTES else 1) + tl.load(at, mask=inside, other=0.0).to(tl.float64)
        along += tl.sum((x - scale * value) * r, 0)  # what the query's rounding is along r
    best, total = tl.load(kept_ptr + b), tl.load(kept_ptr + B + b)
    moment, squares = tl.load(kept_ptr + 2 * B + b), tl.load(kept_ptr + 3 * B + b)
    halves, biases = tl.load(kept_ptr + 4 * B + b), tl.load(kept_ptr + 5 * B + b)
    lost = tl.load(kept_ptr + 6 * B + b)
    inv, residual = tl.load(numbers_ptr + b), tl.load(numbers_ptr + 2 * B + b)
    step, noise = tl.load(numbers_ptr + 3 * B + b), tl.load(numbers_ptr + 6 * B + b)
    row_error, base_error = tl.load(numbers_ptr + 4 * B + b), tl.load(numbers_ptr + 5 * B + b)
    radius, norm, least = tl.load(facts_ptr), tl.load(facts_ptr + 1), tl.load(facts_ptr + 2)
    second = 2 * halves / total
    trace = tl.maximum(second - square, 0.0) + 1e-6 * second
    ess = tl.maximum(total * total / squares, 1.0)
    # A query off by delta answers with r(x - delta); the Jacobian Cov_w / sigma^2 has Frobenius norm <= trace inv.
    random = step * trace * inv
    certain = tl.where(step > 0, 0.0, residual * trace * inv) + cut_off * tl.sqrt(second)
    # Independent errors of logits: float32 storage near the top, exp, and the weights' split.
    weights = (noise + ROUNDING * 32 + 4.76837158203125e-07) * tl.sqrt(trace / ess)  # 2^-21
    # float32 sums of weighted rows: rounded once per STEP rows, cut off within those.
    sums = ROUNDING * tl.sqrt(none + SUMMED / 3) * tl.sqrt(second)
    tiny = short * tl.sqrt(rows) * norm / total
    error = DEVIATIONS * tl.sqrt(random * random + weights * weights + sums * sums + tiny * tiny) + certain
    # log p takes the query's rounding to first order; the second order is half the variance of <delta, v> / sigma^2.
    curved = tl.where(step > 0, DEVIATIONS * step, residual)
    log_error = DEVIATIONS * noise / tl.sqrt(ess) + 0.5 * curved * curved * inv * (trace * inv)
    kept = lost < best - 2 * (row_error * radius + base_error) - cut
    good = (error <= tol * tl.maximum(tl.sqrt(model), least)) & (log_error <= LOG_SHARE) & kept  # not where NaN
    good = good & (tl.load(facts_ptr + 4) > 0)
    path = tl.where(tl.load(digits_ptr + b) > LEAST_DIGITS, DENSE_FINE, DENSE)
    path = tl.where(good, path, EXACT)
    path = tl.where(tl.load(count_ptr + b) <= most, SCREENED, path)
    tl.store(path_ptr + b, path.to(tl.int8))
    tl.store(told_ptr + b, best + tl.log(total) + (along - 0.5 * length) * inv)
    tl.store(told_ptr + B + b, tl.log(total) - moment / total)
    tl.store(told_ptr + 2 * B + b, total * total / squares)
    tl.store(told_ptr + 3 * B + b, biases / total)


@triton.jit
def finish_kernel(
    mean_ptr, x_ptr, sigma_ptr, told_ptr, out_ptr, B, n, d, stride, shift, unit,
    PRIOR: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """out [4, B]: log_prob, entropy, effective sample size, trace = E_w |x_i - r|^2 in model space, `stride` apart.

    log_prob = told_0 - d log sigma sqrt(2 pi), less log n without a prior. One query per program.
    """
    b = tl.program_id(0).to(tl.int64)
    none = tl.full((), 0.0, tl.float64)
    unit, shift, columns, rows = none + unit, none + shift, none + d, none + n
    away = none
    for first in range(0, d, BD):
        k = first + tl.arange(0, BD)
        r = tl.load(mean_ptr + b * d + k, mask=k < d, other=0.0) * unit - shift
        x = tl.load(x_ptr + b * d + k, mask=k < d, other=0.0)
        away += tl.sum(tl.where(k < d, (x - r) * (x - r), 0.0), 0)
    sigma, log_sum = tl.load(sigma_ptr + b), tl.load(told_ptr + b)
    entropy, bias = tl.load(told_ptr + B + b), tl.load(told_ptr + 3 * B + b)
    # Of the weights' logarithms, log pi_i - |x - x_i|^2 / 2 sigma^2 - log_sum, the mean is -entropy.
    level = sigma * unit
    far = 2 * level * level * (entropy + bias - log_sum)  # E_w |x - x_i|^2
    log_prob = log_sum - columns * (tl.log(sigma) + 0.9189385332046727)  # log sqrt(2 pi)
    if not PRIOR:
        log_prob -= tl.log(rows)
    tl.store(out_ptr + b, log_prob)
    tl.store(out_ptr + stride + b, entropy)
    tl.store(out_ptr + 2 * stride + b, tl.load(told_ptr + 2 * B + b))
    tl.store(out_ptr + 3 * stride + b, tl.maximum(far - away, 0.0) / (unit * unit))


def decide(asked: Asked, running: Running, most: int) -> None:
    """Writes the path of each query, and what is told of those whose mean the dense pass has found.

    most: rows that may count up to which a query is screened.
    """
    data, queries, (batch, d) = running.data, running.queries, running.mean.shape
    stored = data.rows.dtype
    short = 2.0**-40 if stored in (torch.uint8, torch.float16) else 0.0  # of two float16 of 2^15 p
    decide_kernel[(batch,)](
        running.mean, queries.centred, queries.parts, queries.numbers, queries.digits, queries.count, running.kept,
        data.facts, running.told, queries.path, batch, asked.n, d, batch * d, most, running.cut, data.shift, data.unit,
        asked.tol,
        ROUNDING * products(stored) * STEP / DEPTH, short,
        BYTES=stored == torch.uint8, BD=_BLOCK, SUMMED=SPLIT // STEP, LEAST_DIGITS=LEAST_DIGITS, ROUNDING=ROUNDING,
        DEVIATIONS=DEVIATIONS, LOG_SHARE=LOG_SHARE, SCREENED=SCREENED, DENSE=DENSE, DENSE_FINE=DENSE_FINE, EXACT=EXACT,
        num_warps=8, enable_fp_fusion=True,
    )  # fmt: skip


def finish(asked: Asked, running: Running, out: Tensor) -> None:
    """Writes out [4, B] float64: log_prob, entropy, ess, trace.

    Where some rows are not seen, log_prob still wants the log of the mass of the prior taken off.
    """
    data, (batch, d) = running.data, running.mean.shape
    prior = asked.seen.bias is not None or asked.seen.exclude is not None
    finish_kernel[(batch,)](
        running.mean, running.queries.centred, asked.sigma, running.told, out, batch, asked.n, d, out.stride(0),
        data.shift, data.unit, PRIOR=prior, BD=_BLOCK, num_warps=8, enable_fp_fusion=True,
    )  # fmt: skip
