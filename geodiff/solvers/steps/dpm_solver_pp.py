"""DPM-Solver++(2M)."""

import math
from collections.abc import Sequence

from torch import Tensor

from geodiff.solvers.evaluation import Evaluate, Visited, blend
from geodiff.solvers.steps.euler import euler


def dpm_solver_pp_2m(
    denoiser: Evaluate,
    x: Tensor,
    sigma: float,
    sigma_next: float,
    denoised: Tensor,
    history: Sequence[Visited] = (),
) -> Tensor:
    """x' = (sigma'/sigma) x + (1 - sigma'/sigma) (r + (h / 2 h_p) (r - r_p)): second order, one evaluation.

    h = log(sigma / sigma'), h_p = log(sigma_p / sigma), sigma_p and r_p of the level before (Lu et al., 2211.01095,
    algorithm 2). The first step and a step to 0 are Euler steps.
    """
    if sigma_next == 0 or not history:
        return euler(denoiser, x, sigma, sigma_next, denoised)
    before = history[-1]
    ratio = math.log(sigma / sigma_next) / math.log(before.sigma / sigma)
    share = sigma_next / sigma
    weight = (1 - share) * ratio / 2
    return blend(denoiser, ((share, x), (1 - share + weight, denoised), (-weight, before.denoised)))
