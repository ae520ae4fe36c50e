"""Two points, -1 and +1: the smallest data set on which everything happens, with its flow known exactly."""

import torch
from torch import Tensor

from geodiff.base.arguments import check_query, check_reals, check_sigma, check_tensor
from geodiff.base.dtypes import PRECISE


def two_point(x: Tensor, sigma: float | Tensor) -> Tensor:
    """r*(x; sigma) = tanh(x / sigma^2): the optimal denoiser over the data -1 and +1. x [B, 1], sigma as elsewhere.

    Raises TypeError or ValueError for another shape or dtype, or a sigma that is not positive.
    """
    x = check_query(x, (1,))
    levels = check_sigma(sigma, len(x), device=x.device).to(x.dtype)[:, None]
    return torch.tanh(x / levels.square())


def two_point_invariant(x: Tensor, sigma: Tensor) -> Tensor:
    """Phi((x - 1) / sigma) + Phi((x + 1) / sigma), twice the distribution function of p_sigma: kept by the flow.

    The flow moves probability, and on the line it cannot pass itself, so every x keeps its quantile (derived).
    x and sigma float64, of shapes that broadcast.
    """
    return torch.special.ndtr((x - 1) / sigma) + torch.special.ndtr((x + 1) / sigma)


def two_point_flow(x: Tensor, sigma: float, sigmas: Tensor) -> Tensor:
    """x(sigma_s) of the flow through x(sigma) = x, float64 [S, B]: the x that has the same invariant, by bisection.

    x [B], sigmas [S], all levels > 0, in any order. Exact to the last digits of the invariant: as long as x keeps away
    from the tails, where it is 0 or 2. Raises TypeError or ValueError that names the argument.
    """
    x = check_tensor(x, "x", PRECISE).double()
    levels = check_reals(sigmas, "sigmas", "[S]", at_least=1).to(x.device)
    check_sigma(levels, len(levels))
    start = check_sigma(sigma, len(x), device=x.device)
    target = two_point_invariant(x, start)  # [B]
    if len(x) == 0:
        return x.new_empty(len(levels), 0)
    reach = 1 + x.abs().max() * torch.maximum(levels / start.min(), torch.ones_like(levels))  # [S]: |x| <= reach
    high = reach[:, None].expand(-1, len(x))
    low = -high
    for _ in range(200):
        middle = (low + high) / 2
        below = two_point_invariant(middle, levels[:, None]) < target
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2
