"""DPS with y_t: an ancestral step, then one that fits the noisy state to a measurement with as much noise."""

from collections.abc import Sequence

from torch import Tensor

from geodiff.base.arguments import check_number
from geodiff.inverse.descent import Denoiser, Descent, Options, Restoration
from geodiff.inverse.problem import Problem
from geodiff.schedules import karras

LEVELS = karras(250, sigma_min=0.02, sigma_max=80.0)


def dps_noised(
    denoiser: Denoiser,
    problem: Problem,
    sigmas: Tensor | Sequence[float] = LEVELS,
    *,
    lam: float = 1.0,
    options: Options | None = None,
) -> Restoration:
    """z = ancestral step towards r; x' = z - (s^2 / 2 lam sigma_n^2) grad_z |y' - A z|^2, y' = y + sigma' n.

    s^2 = (sigma^2 - sigma'^2) / (1 + sigma'^2) is the variance of the step in the coordinates x / sqrt(1 + sigma^2)
    of Zhu et al., 2305.08995, who set this beside DiffPIR and DPS. Nothing is differentiated but |.|^2.

    Where s^2 / lam sigma_n^2 exceeds 1 / norm^2 of the operator, that is taken instead: a longer step along a gradient
    overshoots, and a thousand levels would be needed to do without.

    denoiser  r(x, sigma); one evaluation a level, and no gradient
    sigmas    [S + 1], as for `geodiff.sample`
    lam       > 0, how much the prior counts against the measurement
    Raises TypeError or ValueError that names the argument.
    """
    lam = check_number(lam, "lam", 0.0)
    descent = Descent(denoiser, problem, sigmas, options)
    operator = problem.operator
    longest = 1 / max(operator.norm, 1e-150) ** 2
    for sigma, following in descent.steps():
        r = descent.denoised(sigma)
        z = descent.ancestral(r, sigma, following)
        noised = operator.observed(problem.y + following * descent.noise(problem.y))
        variance = (sigma**2 - following**2) / (1 + following**2)
        length = min(variance / (lam * problem.sigma**2), longest)
        descent.go(z + length * operator.adjoint(noised - operator(z)), r, sigma)
    return descent.end()
