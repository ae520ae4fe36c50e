"""The optimal denoiser as a mean shift: its modes, and how the probability-flow ODE walks towards them."""

from collections.abc import Callable

import torch
from torch import Tensor

from geodiff.arguments import check_integer

Denoiser = Callable[[Tensor, float], Tensor]


def mean_shift(optimal: Denoiser, x: Tensor, sigma: float, steps: int) -> Tensor:
    """x <- r*(x; sigma), `steps` times: Gaussian mean shift with bandwidth sigma; all iterates, [steps + 1, B, *shape].

    r*(x; sigma) - x = sigma^2 grad log p_sigma(x) is the mean-shift vector (Comaniciu and Meer 2002; arXiv 2305.19947,
    section 4), so p_sigma never decreases along the iterates.
    """
    check_integer(steps, "steps", 0)
    iterates = [x]
    for _ in range(steps):
        iterates.append(optimal(iterates[-1], sigma))
    return torch.stack(iterates)


def partial_step(optimal: Denoiser, x: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """x + (1 - sigma'/sigma) (r*(x; sigma) - x), [B, *shape]: a mean shift cut short.

    With the optimal denoiser this is the Euler step of the probability-flow ODE from sigma to sigma', so a trajectory
    is a mean shift whose bandwidth is annealed (arXiv 2305.19947, section 4). sigma' = 0 is a whole step.
    """
    return x + (1 - sigma_next / sigma) * (optimal(x, sigma) - x)
