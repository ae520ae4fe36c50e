"""DPS with y_t: an ancestral step, then one that fits the noisy state to a measurement with as much noise."""

from collections.abc import Sequence

from torch import Tensor

from geodiff.base.arguments import check_number
from geodiff.base.denoiser_type import Denoiser
from geodiff.inverse.descent import Descent, Options, Restoration
from geodiff.inverse.problem import Problem
from geodiff.schedules import exponential

#: Alike at all levels, in ratio: on Karras's, crowded at the top, the last steps are the longest and keep noise.
LEVELS = exponential(100, sigma_min=0.05, sigma_max=5.0)


def dps_noised(
    denoiser: Denoiser,
    problem: Problem,
    sigmas: Tensor | Sequence[float] | None = None,
    *,
    lam: float = 0.06,
    options: Options | None = None,
) -> Restoration:
    """z = ancestral step towards r; x' = z - (s^2 / 2 lam sigma_n^2) grad |y' - A x'|^2, y' = y + sigma' A n.

    s^2 = sigma^2 - sigma'^2 is the variance of the step. Zhu et al., 2305.08995, set this beside DiffPIR and DPS.
    Nothing is differentiated but |.|^2. Two things are not as they stand there:

    - The gradient is that at x' itself, so the step is the proximal map at rho = lam sigma_n^2 / s^2. Theirs, at z, is
      the same for small s; with a hundred levels it overshoots, and cut off where it would, it is 2 dB worse.
    - The noise of y' is that of a measurement of x_0 + sigma' n. Independent noise of the same size is larger than it
      wherever A shrinks: sixteen times, in variance, for super-resolution by 4. For unseen pixels both agree.

    denoiser  r(x, sigma); one evaluation a level, and no gradient
    sigmas    [S + 1], as for `geodiff.sample`; None: LEVELS, exponential, 100 from 5 to 0.05
    lam       > 0, how much the prior counts against the measurement
    Raises TypeError or ValueError that names the argument.
    """
    lam = check_number(lam, "lam", 0.0)
    descent = Descent(denoiser, problem, LEVELS if sigmas is None else sigmas, options)
    operator = problem.operator
    for sigma, following in descent.steps():
        r = descent.denoised(sigma)
        z = descent.ancestral(r, sigma, following)
        noised = problem.y + following * operator(descent.noise())
        variance = sigma**2 - following**2
        descent.go(operator.proximal(z, noised, lam * problem.sigma**2 / variance), r, sigma)
    return descent.end()
