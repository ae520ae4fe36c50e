"""DPM-Solver++(2M)."""

import math
from collections.abc import Sequence

from torch import Tensor

from geodiff.solvers.evaluation import Evaluate, Level, blend
from geodiff.solvers.steps.euler import euler


def dpm_solver_pp_2m(denoiser: Evaluate, at: Level, sigma_next: float, history: Sequence[Level] = ()) -> Tensor:
    """x' = (sigma'/sigma) x + (1 - sigma'/sigma) (r + (h / 2 h_p) (r - r_p)): second order, one evaluation.

    h = log(sigma / sigma'), h_p = log(sigma_p / sigma), sigma_p and r_p of the level before (Lu et al., 2211.01095,
    algorithm 2). The first step and a step to 0 are Euler steps.
    """
    if sigma_next == 0 or not history:
        return euler(denoiser, at, sigma_next)
    before = history[-1]
    ratio = math.log(at.sigma / sigma_next) / math.log(before.sigma / at.sigma)
    share = sigma_next / at.sigma
    weight = (1 - share) * ratio / 2
    return blend(denoiser, ((share, at.x), (1 - share + weight, at.denoised), (-weight, before.denoised)))
