"""Adams-Bashforth steps: the slope of the next step, extrapolated from those at the levels already visited.

One evaluation per step; the first steps, which have too little behind them, take the highest order they can, so the
first is an Euler step. A step to 0 is an Euler step: what it extrapolates would vanish there anyway.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from geodiff.base.arguments import check_integer
from geodiff.solvers.evaluation import Evaluate, Level, Step, blend
from geodiff.solvers.steps.euler import euler

# Classical Adams-Bashforth, the weight of the newest slope first.
_EVEN_WEIGHTS = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


def ipndm(order: int) -> Step:
    """x' = x + h (w_0 eps + w_1 eps_p + ...), w = (3, -1)/2, (23, -16, 5)/12 or (55, -59, 37, -9)/24: order 2, 3 or 4.

    The weights are those of even steps, whatever the steps are (iPNDM: Zhang and Chen, 2204.13902; PNDM: Liu et al.,
    2202.09778). So the order is reached on levels at even distances; on others it is 2 for every set of weights.
    """
    check_integer(order, "order", 2, 4)
    return _adams_bashforth(f"ipndm{order}", order, lambda nodes: _EVEN_WEIGHTS[len(nodes)])


def deis(order: int) -> Step:
    """x' = x + integral of P(s) ds from sigma to sigma', P the polynomial through the last order + 1 slopes.

    DEIS-rhoAB, Adams-Bashforth for the steps as they are, in rho = sigma (Zhang and Chen, 2204.13902). Orders 1, 2 and
    3 use 2, 3 and 4 slopes, and the error falls with the 2nd, 3rd and 4th power of the step.
    """
    check_integer(order, "order", 1, 3)
    return _adams_bashforth(f"deis{order}", order + 1, _interpolation_weights)


def _adams_bashforth(name: str, slopes: int, weights_of: Callable[[Sequence[float]], Sequence[float]]) -> Step:
    """The step that weighs up to `slopes` slopes; weights_of takes their places (s - sigma) / h, newest (0) first."""

    def step(denoiser: Evaluate, at: Level, sigma_next: float, history: Sequence[Level] = ()) -> Tensor:
        if sigma_next == 0:
            return euler(denoiser, at, sigma_next)
        h = sigma_next - at.sigma
        past = [history[-back] for back in range(1, min(slopes - 1, len(history)) + 1)]
        weights = weights_of([0.0, *((level.sigma - at.sigma) / h for level in past)])
        share = h * weights[0] / at.sigma
        terms = [(1 + share, at.x), (-share, at.denoised)]
        for weight, level in zip(weights[1:], past, strict=True):
            share = h * weight / level.sigma
            terms += [(share, level.x), (-share, level.denoised)]
        return blend(denoiser, terms)

    step.__name__ = name
    return step


def _interpolation_weights(nodes: Sequence[float]) -> list[float]:
    """The integrals over [0, 1] of the Lagrange polynomials on `nodes`."""
    weights = []
    for k, node in enumerate(nodes):
        polynomial = [1.0]  # coefficients, the constant first
        for other in (*nodes[:k], *nodes[k + 1 :]):
            scale = 1 / (node - other)
            shifted = [0.0, *polynomial]  # t p(t)
            polynomial = [scale * (up - other * low) for up, low in zip(shifted, [*polynomial, 0.0], strict=True)]
        weights.append(sum(coefficient / (power + 1) for power, coefficient in enumerate(polynomial)))
    return weights
