"""The error bounds that decide what may be skipped and when an answer is accepted; derived in README.md."""

import math

import torch
from torch import Tensor

from geodiff.kernels.configs import FLUSH, SPLIT, STEP
from geodiff.kernels.logits import products
from geodiff.kernels.prepared import Prepared
from geodiff.kernels.queries import Parts

_ROUNDING = 2.0**-24  # float32, to the nearest
_CUT = 2.0**-23  # a tensor core's float32 sums, which are cut off
_DEVIATIONS = 5  # random errors are bounded at this many standard deviations
_DEPTH = 16  # products that a tensor core sums at once


def least_scale(data: Prepared) -> float:
    """The smallest value that contract 1 divides by, 0.01 max |x_i|, in centred units."""
    return max(0.01 * data.model_norm, 1e-300)


def cutoff(data: Prepared, n: int, tol: float) -> float:
    """Rows whose logit lies this far below the largest, all n together, move the mean by tol/50 of least_scale."""
    return math.log(max(2.0, n * 2 * max(data.radius, 1e-300) * 50 / (tol * least_scale(data))))


def row_errors(data: Prepared, query: Parts, x: Tensor, inv: Tensor) -> tuple[Tensor, Tensor]:
    """(a, b) [B]: the logit of row i is off by at most a away_i + b before it is stored, a common constant aside."""
    base = 1e-14 * x.norm(dim=1) * data.norm
    if data.rows.dtype != torch.uint8:
        terms = products(data.rows.dtype) * FLUSH / _DEPTH + 4
        base = base + terms * _CUT * x.norm(dim=1) * data.norm
        base = base if _in_range(data) else torch.full_like(base, math.inf)
    return query.residual * inv, base * inv


def stored_error(logits: Tensor) -> Tensor:
    """What rounding to float32 may have done to logits."""
    return logits.abs() * _CUT


def dense_error(data: Prepared, query: Parts, x: Tensor, inv: Tensor, state: Tensor, mean: Tensor) -> Tensor:
    """Bound on |r - exact r|, [B] in centred units, of the dense pass. state [STATE, B] as in `merge`; mean [B, d]."""
    trace, _, _ = _moments(state, mean)
    # A query off by delta answers with r(x - delta); the Jacobian Cov_w / sigma^2 has Frobenius norm <= trace inv.
    random = torch.where(query.step > 0, query.step * trace * inv, 0)
    certain = torch.where(query.step > 0, 0, query.residual * trace * inv)
    noise = torch.zeros_like(inv)
    if data.rows.dtype != torch.uint8:
        within = math.sqrt(products(data.rows.dtype) * FLUSH / _DEPTH)
        noise = within * _CUT * _largest_piece(x) * data.norm * inv
    return _sum_error(data, state, mean, noise, random) + certain


def weighted_error(data: Prepared, state: Tensor, mean: Tensor) -> Tensor:
    """The same where the logits were given, and only rounded to float32."""
    zero = torch.zeros_like(state[0])
    return _sum_error(data, state, mean, zero, zero)


def _sum_error(data: Prepared, state: Tensor, mean: Tensor, noise: Tensor, random: Tensor) -> Tensor:
    """What the second product adds to logits with independent errors `noise`, and to a random error of the mean."""
    trace, ess, second = _moments(state, mean)
    # Independent errors of logits: float32 storage near the top, exp, and the weights' split.
    noise = noise + _ROUNDING * (state[0].abs() + 32) + 2.0**-21
    weights = noise * (trace / ess).sqrt()
    # float32 sums of weighted rows: rounded once per STEP rows, cut within those.
    sums = _ROUNDING * math.sqrt(SPLIT / STEP / 3) * second.sqrt()
    certain = _ROUNDING * products(data.rows.dtype) * STEP / _DEPTH * second.sqrt()
    error = _DEVIATIONS * (random.square() + weights.square() + sums.square()).sqrt() + certain
    return error if _in_range(data) else torch.full_like(error, math.inf)


def _moments(state: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(E_w |v - r|^2, effective sample size, E_w |v|^2), [B] each."""
    _, total, _, squares, halves, _ = state
    second = 2 * halves / total
    trace = (second - mean.square().sum(1)).clamp_min(0) + 1e-6 * second
    return trace, (total.square() / squares).clamp_min(1), second


def _in_range(data: Prepared) -> bool:
    """Whether float32 products of the data, split in three, stay clear of overflow and of subnormal numbers."""
    return 2.0**-80 < data.norm < 2.0**110


def _largest_piece(x: Tensor) -> Tensor:
    """max over runs of FLUSH columns of |x|, [B]."""
    padded = torch.nn.functional.pad(x, (0, -x.shape[1] % FLUSH))
    return padded.unflatten(1, (-1, FLUSH)).norm(dim=2).amax(1)
