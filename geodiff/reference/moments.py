"""Second moments of the posterior and draws from it in pure PyTorch: the oracle of the kernels for derivatives.

Like `geodiff.reference`, written as the formula is and in difference form; one query at a time, so O(N) numbers besides
a tile of data. log_weights may be [N] or, unlike there, [B, N]; exclude [B] is the point that each query does not see.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from geodiff.base.arguments import check_sigma
from geodiff.reference.formula import tiles

__all__ = ["Along", "covariance", "draw", "trace"]


class Along(NamedTuple):
    """What a covariance is taken with, c_i = <x_i - r, v> + slope |x - x_i|^2: v [B, *shape], slope [B]."""

    v: Tensor
    slope: Tensor


def trace(
    x: Tensor,
    data: Tensor,
    sigma: float | Tensor,
    *,
    log_weights: Tensor | None = None,
    exclude: Tensor | None = None,
) -> Tensor:
    """tr Cov_w = sum_i w_i |x_i - r|^2, [B]: sigma^2 times the divergence of r. Arguments as in `covariance`."""
    found = []
    for b, level in enumerate(check_sigma(sigma, len(x), device=x.device)):
        weights, _, mean = _weigh(x[b].flatten(), data, level, _row(log_weights, b), _point(exclude, b))
        found.append((weights * _squared_distances(mean, data)).sum())
    return torch.stack(found) if found else x.new_empty(0)


def covariance(
    x: Tensor,
    data: Tensor,
    sigma: float | Tensor,
    along: Along,
    *,
    log_weights: Tensor | None = None,
    exclude: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cov_w(c, x_i) [B, *shape] and Cov_w(c, |x - x_i|^2) [B], with c as `Along` says.

    x           [B, *shape] in model space, of the dtype of along.v, which everything is computed in: float64, to be
                the oracle
    data        [N, *shape] as stored
    sigma       a number, 0-d or [B]
    log_weights [N] or [B, N], not necessarily normalised; None: all alike
    exclude     int [B]: the point that each query does not see, -1 for none

    With slope = 0 the first is sigma^2 J v, and v^T dr/dsigma is the second over sigma^3; with v = 0 and slope = 1 the
    first is sigma^3 dr/dsigma.
    """
    rows, far = [], []
    for b, level in enumerate(check_sigma(sigma, len(x), device=x.device)):
        weights, distances, mean = _weigh(x[b].flatten(), data, level, _row(log_weights, b), _point(exclude, b))
        away = distances - (weights * distances).sum()  # [N]
        towards = torch.cat([(points - mean) @ along.v[b].flatten() for _, points in tiles(data, x.dtype)])  # [N]
        part = weights * (towards + along.slope[b] * away)
        rows.append(_weighted_sum(part, data, mean))
        far.append((part * away).sum())
    if not rows:
        return torch.empty_like(x), x.new_empty(0)
    return torch.stack(rows).reshape(x.shape), torch.stack(far)


def draw(
    x: Tensor,
    data: Tensor,
    sigma: float | Tensor,
    uniform: Tensor,
    *,
    log_weights: Tensor | None = None,
    exclude: Tensor | None = None,
) -> Tensor:
    """For each number of uniform [B, n] in [0, 1), the first i at which w_1 + ... + w_i exceeds it: int64 [B, n]."""
    found = torch.empty(uniform.shape, dtype=torch.int64, device=x.device)
    for b, level in enumerate(check_sigma(sigma, len(x), device=x.device)):
        weights, _, _ = _weigh(x[b].flatten(), data, level, _row(log_weights, b), _point(exclude, b))
        total = weights.cumsum(0)
        last = int(weights.nonzero().max())
        found[b] = torch.searchsorted(total, uniform[b].to(x.device) * total[-1], right=True).clamp(max=last)
    return found


def _row(log_weights: Tensor | None, b: int) -> Tensor | None:
    return log_weights[b] if log_weights is not None and log_weights.ndim == 2 else log_weights


def _point(exclude: Tensor | None, b: int) -> int:
    return -1 if exclude is None else int(exclude[b])


def _weigh(
    x: Tensor, data: Tensor, sigma: Tensor, log_weights: Tensor | None, exclude: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights [N], squared distances [N] and mean [d] of one query x [d]."""
    distances = _squared_distances(x, data)
    logits = -distances / (2 * sigma.square()).to(x.dtype)
    if exclude >= 0:
        logits[exclude] = -torch.inf
    weights = (logits if log_weights is None else logits + log_weights.to(x.dtype)).softmax(0)
    return weights, distances, _weighted_sum(weights, data, torch.zeros_like(x))


def _squared_distances(x: Tensor, data: Tensor) -> Tensor:
    return torch.cat([(points - x).square().sum(1) for _, points in tiles(data, x.dtype)])


def _weighted_sum(weights: Tensor, data: Tensor, origin: Tensor) -> Tensor:
    """sum_i weights_i (x_i - origin), [d]."""
    total = torch.zeros_like(origin)
    for start, points in tiles(data, weights.dtype):
        total = total + weights[start : start + len(points)] @ (points - origin)
    return total
