"""PiGDM: the measurement's likelihood with x_0 spread around r, its gradient taken through the denoiser."""

from collections.abc import Sequence

from torch import Tensor

from geodiff.base.denoiser_type import Denoiser
from geodiff.inverse.descent import Descent, Options, Restoration
from geodiff.inverse.problem import Problem
from geodiff.schedules import karras

LEVELS = karras(100, sigma_min=0.02, sigma_max=80.0)


def pigdm(
    denoiser: Denoiser,
    problem: Problem,
    sigmas: Tensor | Sequence[float] | None = None,
    *,
    options: Options | None = None,
) -> Restoration:
    """E = r + sigma^2 grad_x log N(y; A r, s^2 A A^T + sigma_n^2); x' = ancestral step towards E.

    s^2 = sigma^2 / (1 + sigma^2). Song et al., ICLR 2023 (pseudo-inverse guidance): p(x_0 | x) is taken for N(r, s^2),
    which the optimal denoiser shows to be wrong by how far Cov_w is from s^2. The gradient, (A^T (s^2 A A^T +
    sigma_n^2)^-1 (y - A r))^T J, holds the step of the proximal map: that is (prox(r) - r) / s^2 at rho = sigma_n^2 /
    s^2, so no inverse is formed.

    denoiser  r(x, sigma), followed by autograd; one evaluation a level, differentiated
    sigmas    [S + 1], as for `geodiff.sample`; None: LEVELS, Karras's, 100 from 80 to 0.02
    Raises TypeError or ValueError that names the argument.
    """
    descent = Descent(denoiser, problem, LEVELS if sigmas is None else sigmas, options)
    for sigma, following in descent.steps():
        variance = sigma**2 / (1 + sigma**2)
        rho = problem.sigma**2 / variance

        def towards(r: Tensor, rho: float = rho, variance: float = variance) -> Tensor:
            return (problem.proximal(r, rho) - r) / variance

        r, climbs = descent.pulled(sigma, towards)
        estimate = r + sigma**2 * climbs
        descent.go(descent.ancestral(estimate, sigma, following), estimate, sigma)
    return descent.end()
