"""Euler's method, which for this ODE is DDIM."""

from collections.abc import Sequence

from torch import Tensor

from geodiff.solvers.evaluation import Evaluate, Level, blend


def euler(denoiser: Evaluate, at: Level, sigma_next: float, history: Sequence[Level] = ()) -> Tensor:
    """x' = (sigma'/sigma) x + (1 - sigma'/sigma) r(x; sigma): first order, one evaluation (DDIM, 2010.02502).

    The same as x + (sigma' - sigma) (x - r) / sigma, written as the convex combination that it is: a step to 0 returns
    r exactly.
    """
    ratio = sigma_next / at.sigma
    return blend(denoiser, ((ratio, at.x), (1 - ratio, at.denoised)))
