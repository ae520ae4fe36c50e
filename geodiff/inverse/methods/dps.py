"""DPS: an ancestral step, then one along the gradient of the misfit, taken through the denoiser."""

import math
from collections.abc import Sequence

from torch import Tensor

from geodiff.base.arguments import check_number
from geodiff.base.denoiser_type import Denoiser
from geodiff.base.per_point import per_point
from geodiff.inverse.descent import Descent, Options, Restoration
from geodiff.inverse.problem import Problem
from geodiff.schedules import karras

LEVELS = karras(250, sigma_min=0.02, sigma_max=80.0)


def dps(
    denoiser: Denoiser,
    problem: Problem,
    sigmas: Tensor | Sequence[float] | None = None,
    *,
    scale: float = 1.0,
    options: Options | None = None,
) -> Restoration:
    """x' = ancestral step towards r - scale c grad_x |y - A r(x; sigma)|, c = sqrt((1 + sigma^2) (1 + sigma'^2)).

    Chung et al., 2209.14687, algorithm 1; c is what that step of x_t = x / sqrt(1 + sigma^2) is in x. The gradient goes
    through the denoiser: -(A^T (y - A r) / |y - A r|)^T J, with J = Cov_w / sigma^2 for the optimal one, exactly.

    denoiser  r(x, sigma), followed by autograd; one evaluation a level, differentiated
    sigmas    [S + 1], as for `geodiff.sample`; None: LEVELS, Karras's, 250 from 80 to 0.02
    scale     > 0, the length of the step: zeta in the paper
    Raises TypeError or ValueError that names the argument.
    """
    scale = check_number(scale, "scale", 0.0)
    descent = Descent(denoiser, problem, LEVELS if sigmas is None else sigmas, options)

    def towards(r: Tensor) -> Tensor:
        """-grad_r |y - A r|."""
        residual = problem.residual(r)
        length = per_point(residual.flatten(1).norm(dim=1).clamp_min(1e-30), residual)
        return problem.operator.adjoint(residual / length)

    for sigma, following in descent.steps():
        r, descends = descent.pulled(sigma, towards)
        length = scale * math.sqrt((1 + sigma**2) * (1 + following**2))
        descent.go(descent.ancestral(r, sigma, following) + length * descends, r, sigma)
    return descent.end()
