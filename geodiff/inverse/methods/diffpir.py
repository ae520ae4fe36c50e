"""DiffPIR: denoise, then fit the measurement by a proximal step."""

import math
from collections.abc import Sequence

from torch import Tensor

from geodiff.base.arguments import check_number
from geodiff.base.denoiser_type import Denoiser
from geodiff.inverse.descent import Descent, Options, Restoration
from geodiff.inverse.problem import Problem
from geodiff.schedules import karras

#: 40 levels, so 40 evaluations.
LEVELS = karras(40, sigma_min=0.02, sigma_max=10.0)


def diffpir(
    denoiser: Denoiser,
    problem: Problem,
    sigmas: Tensor | Sequence[float] | None = None,
    *,
    lam: float = 1.0,
    zeta: float = 1.0,
    options: Options | None = None,
) -> Restoration:
    """E = argmin_z |y - A z|^2 + rho |z - r|^2; x' = E + sigma' (sqrt(1 - zeta) e + sqrt(zeta) n).

    rho = lam sigma_n^2 / sigma^2, e = (x - E) / sigma is the noise that E leaves in x, n is fresh noise (Zhu et al.,
    2305.08995, algorithm 1, whose x_t is x / sqrt(1 + sigma^2)). In the words of the trajectory: E takes the place of r
    on the denoising trajectory, and with zeta = 0 the step from x to x' is the Euler step towards E.

    denoiser  r(x, sigma); one evaluation a level, and no gradient
    sigmas    [S + 1], as for `geodiff.sample`; None: LEVELS, Karras's, 40 from 10 to 0.02
    lam       > 0, how much the prior counts against the measurement
    zeta      0..1, the share of fresh noise
    Raises TypeError or ValueError that names the argument.
    """
    lam = check_number(lam, "lam", 0.0)
    zeta = check_number(zeta, "zeta", 0.0, 1.0, ends="[]")
    descent = Descent(denoiser, problem, LEVELS if sigmas is None else sigmas, options)
    rho = {sigma: _weight(lam, problem.sigma / sigma) for sigma, _ in descent.steps()}
    for sigma, following in descent.steps():
        r = descent.denoised(sigma)
        estimate = problem.proximal(r, rho[sigma])
        left = (descent.x - estimate) / sigma
        noise = math.sqrt(1 - zeta) * left + math.sqrt(zeta) * descent.noise()
        descent.go(estimate + following * noise, estimate, sigma)
    return descent.end()


def _weight(lam: float, ratio: float) -> float:
    """rho = lam (sigma_n / sigma)^2. Raises ValueError where float64 does not hold it."""
    rho = lam * (ratio * ratio)
    if not 0 < rho < math.inf:
        raise ValueError(
            f"lam: expected lam sigma_n^2 / sigma^2 that float64 holds, found {rho:g} for lam = {lam:g} and sigma_n / "
            f"sigma = {ratio:g}; allowed a lam nearer to 1"
        )
    return rho
