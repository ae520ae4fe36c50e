"""The optimal denoiser where a data point is itself a normal distribution, in PyTorch: stored latents of a VAE."""

from collections.abc import Iterator

import torch
from torch import Tensor

from geodiff.base.arguments import check_data, check_query, check_sigma
from geodiff.reference.formula import tiles


def mixture(x: Tensor, means: Tensor, deviations: Tensor, sigma: float | Tensor) -> Tensor:
    """r = sum_i w_i (m_i + s_i^2 / (s_i^2 + sigma^2) (x - m_i)) for data sum_i N(m_i, diag s_i^2) / N.

    log w_i = -1/2 sum_j [(x - m_i)_j^2 / (s_i^2 + sigma^2)_j + log (s_i^2 + sigma^2)_j]; s = 0 is the optimal denoiser
    of the means.

    x           [B, *shape] float32 or float64; everything is computed and returned in its dtype
    means       [N, *shape], as `geodiff.reference.posterior` takes data
    deviations  [N, *shape] floating, >= 0, in the units of model space
    sigma       a number, 0-d, [B] or [B, 1, ...], > 0
    Difference form, O(N) numbers beside a tile of each. Raises TypeError or ValueError that names the argument.
    """
    means = check_data(means)
    x = check_query(x, means.shape[1:])
    deviations = check_data(deviations)
    if deviations.shape != means.shape or not deviations.is_floating_point():
        raise ValueError(
            f"deviations: expected floats in the shape of means {list(means.shape)}, found {deviations.dtype} "
            f"{list(deviations.shape)}; allowed one for each number of the means"
        )
    levels = check_sigma(sigma, len(x), device=x.device).to(x.dtype)
    found = torch.empty_like(x)
    for b, (query, level) in enumerate(zip(x.flatten(1), levels, strict=True)):
        logits = torch.cat([_logits(query, *parts, level) for parts in _tiles(means, deviations, x.dtype)])
        weights = logits.softmax(0)
        total, start = torch.zeros_like(query), 0
        for centre, spread in _tiles(means, deviations, x.dtype):
            share = spread.square() / (spread.square() + level.square())
            total += weights[start : start + len(centre)] @ (centre + share * (query - centre))
            start += len(centre)
        found[b] = total.reshape(x.shape[1:])
    return found


def _logits(query: Tensor, centre: Tensor, spread: Tensor, level: Tensor) -> Tensor:
    variance = spread.square() + level.square()
    return -((query - centre).square() / variance + variance.log()).sum(1) / 2


def _tiles(means: Tensor, deviations: Tensor, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
    for (_, centre), (_, spread) in zip(tiles(means, dtype), tiles(deviations, dtype), strict=True):
        yield centre, spread
