"""The optimal denoiser in pure PyTorch, written as the formula is: the oracle that every kernel is tested against.

`posterior` takes every difference x - x_i before it squares it, so nothing cancels: in float64 it is exact for every
noise level.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from geodiff.base.arguments import (
    check_data,
    check_exclude,
    check_finite,
    check_log_weights,
    check_query,
    check_sigma,
    check_topk,
)
from geodiff.base.posterior import Posterior

# The most numbers in one tile of data, which is all the data that is ever in the query's dtype. On a CPU a tile should
# stay in cache while every query passes over it; on an accelerator it must be large enough to hide the launches.
_TILE_CPU = 2**17
_TILE_ACCELERATOR = 2**24
# The most numbers in a block of distances [queries, N], of which about five copies live at a time.
_BLOCK = 2**19


def posterior(
    x: Tensor,
    data: Tensor,
    sigma: float | Tensor,
    *,
    topk: int = 0,
    log_weights: Tensor | None = None,
    exclude: Tensor | None = None,
) -> Posterior:
    """w_i = softmax_i(log pi_i - |x - x_i|^2 / 2 sigma^2); r = sum_i w_i x_i (Chen et al., arXiv 2305.19947).

    x           [B, *shape] float32 or float64, in model space; everything is computed and returned in its dtype
    data        [N, *shape] on x's device; uint8 u means u/127.5 - 1, float16 .. float64 mean themselves
    sigma       a number, 0-d, [B] or [B, 1, ...], > 0: the standard deviation of the noise in x
    topk        how many of the heaviest points to name, 0..N. Points are ranked by logit, so the k nearest are found
                even where all weights but one underflow to 0; of equal points the lower index comes first. -1 where
                fewer points than that are seen
    log_weights [N]: pi = softmax(log_weights), -inf leaves a point out; None: pi_i = 1/N
    exclude     int [B]: the point that each query does not see, as if it were not there; -1: it sees all

    Memory: a tile of data, and a few times the squared distances of as many queries as keep them under 4 MiB (always at
    least one query, so O(N)). Differentiable in x, sigma and log_weights, at the price of keeping every tile.
    Raises TypeError or ValueError that names the argument, also where x is so far from data that distances overflow.
    """
    data = check_data(data)
    x = check_query(x, data.shape[1:])
    if data.device != x.device:
        raise ValueError(
            f"data: expected on x's device {x.device}, found on {data.device}; allowed one device for both"
        )
    sigma = check_sigma(sigma, len(x), device=x.device)
    topk = check_topk(topk, len(data))
    if log_weights is None:
        log_prior = x.new_full((len(data),), -math.log(len(data)))
    else:
        log_prior = check_log_weights(log_weights, len(data), device=x.device).to(x.dtype)
    if exclude is not None:
        exclude = check_exclude(exclude, len(x), len(data)).to(x.device)

    block = max(1, _BLOCK // len(data))
    with torch.autocast(x.device.type, enabled=False):
        parts = [
            _posterior(x[part], data, sigma[part], topk, _left(log_prior, None if exclude is None else exclude[part]))
            for part in (slice(start, start + block) for start in range(0, max(1, len(x)), block))
        ]
    return Posterior(*(torch.cat(rows) for rows in zip(*parts, strict=True)))


def denoise(x: Tensor, data: Tensor, sigma: float | Tensor) -> Tensor:
    """r(x; sigma) = sum_i w_i x_i, [B, *shape]: the mean of `posterior`, with its arguments and errors."""
    return posterior(x, data, sigma).mean


def model_space(data: Tensor, dtype: torch.dtype) -> Tensor:
    """Stored data in model space and in `dtype`: u/127.5 - 1 for uint8 (0..255 to -1..1), else the values."""
    return data.to(dtype) / 127.5 - 1 if data.dtype == torch.uint8 else data.to(dtype)


def _left(log_prior: Tensor, exclude: Tensor | None) -> Tensor:
    """log pi of what each query sees: [N], or [b, N] where one point is excluded for each."""
    if exclude is None:
        return log_prior
    chosen = exclude[:, None] == torch.arange(len(log_prior), device=log_prior.device)
    left = log_prior.masked_fill(chosen, -torch.inf)
    if bool(left.isneginf().all(1).any()):
        raise ValueError("exclude: expected a point of weight above 0 that is left, found none for one query")
    return left.log_softmax(1)


def _posterior(x: Tensor, data: Tensor, sigma: Tensor, topk: int, log_prior: Tensor) -> tuple[Tensor, ...]:
    """The fields of Posterior, in order, for a block of x [b, *shape], sigma [b] float64, log_prior [N] or [b, N]."""
    d = data[0].numel()
    distances = _squared_distances(x, data)  # [b, N]
    logits = log_prior - distances / (2 * sigma.square()).to(x.dtype)[:, None]  # [b, N]
    best = logits.amax(1, keepdim=True)  # [b, 1]
    if not torch.isfinite(best.detach()).all():
        raise ValueError(
            f"x: expected within reach of the data, found squared distances over sigma^2 that overflow {x.dtype}; "
            f"allowed smaller values of x and data, a larger sigma, or float64"
        )
    logits = logits - best  # 0 at the best point: logits of 1e9 and more would cost the weights their digits
    log_total = logits.logsumexp(1)  # [b]
    weights = logits.softmax(1)  # [b, N]
    log_prob = best[:, 0] + log_total - (d * (sigma.log() + math.log(2 * math.pi) / 2)).to(x.dtype)
    # A stable sort, and not topk, which is free to answer either of two equal points. Cloned, to let go of the rest.
    indices = logits.argsort(dim=1, descending=True, stable=True)[:, :topk].clone() if topk else _no_indices(x)
    return (
        _weighted_mean(weights, data).reshape(x.shape),
        log_prob,
        torch.special.entr(weights).sum(1),
        1 / weights.square().sum(1),
        torch.where(logits.gather(1, indices).isneginf(), -1, indices),
        weights.gather(1, indices),
    )


def _squared_distances(x: Tensor, data: Tensor) -> Tensor:
    """|x - x_i|^2, [b, N], each as the sum of squared differences."""
    queries = x.flatten(1)  # [b, d]
    distances = x.new_empty(len(x), len(data))
    for start, points in tiles(data, x.dtype):
        check_finite(points, "data", first_row=start)
        # One query at a time, so that the differences are no larger than the tile: never b x n x d. And each row to its
        # place at once: small results kept between large temporaries fragment the heap, by as much as all the data.
        for b, query in enumerate(queries):
            distances[b, start : start + len(points)] = (query - points).square().sum(1)
    return distances


def _weighted_mean(weights: Tensor, data: Tensor) -> Tensor:
    """sum_i w_i x_i, [b, d], in the dtype of the weights."""
    # In float64 whatever the dtype of x: a float32 product may be done in TF32 or bfloat16, as the caller set torch.
    mean = weights.new_zeros(len(weights), data[0].numel(), dtype=torch.float64)
    for start, points in tiles(data, weights.dtype):
        mean += weights[:, start : start + len(points)].double() @ points.double()
    return mean.to(weights.dtype)


def tiles(data: Tensor, dtype: torch.dtype) -> Iterator[tuple[int, Tensor]]:
    """(first row, points [n, d] in model space and in dtype), over all the data."""
    tile = _TILE_CPU if data.device.type == "cpu" else _TILE_ACCELERATOR
    # Nearly equal tiles of three rows or more hold one row only if N = 1. PyTorch sums a single row in another order
    # than several, and then exact duplicates in different tiles would differ by rounding.
    rows = max(3, tile // data[0].numel())
    start = 0
    for part in data.tensor_split(math.ceil(len(data) / rows)):
        yield start, model_space(part, dtype).flatten(1)
        start += len(part)


def _no_indices(x: Tensor) -> Tensor:
    return torch.empty(len(x), 0, dtype=torch.int64, device=x.device)
