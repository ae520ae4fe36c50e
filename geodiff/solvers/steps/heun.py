"""Heun's method, as EDM samples."""

from collections.abc import Sequence

from torch import Tensor

from geodiff.solvers.evaluation import Evaluate, Level, combine
from geodiff.solvers.steps.euler import euler


def heun(denoiser: Evaluate, at: Level, sigma_next: float, history: Sequence[Level] = ()) -> Tensor:
    """x' = x~ + (sigma/sigma' - 1) (r(x~; sigma') - r(x; sigma)) / 2, x~ the Euler step: second order, two evaluations.

    The same as x + (sigma' - sigma) (eps + eps~) / 2 with eps = (x - r) / sigma and eps~ that of x~ and sigma' (Karras
    et al., 2206.00364, algorithm 1), but a convex combination and a small correction. A step to 0 is an Euler step.
    """
    guess = euler(denoiser, at, sigma_next)
    if sigma_next == 0:
        return guess
    weight = (at.sigma / sigma_next - 1) / 2
    return combine(denoiser, guess, sigma_next, weight, ((1.0, guess), (-weight, at.denoised)))
