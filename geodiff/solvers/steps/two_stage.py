"""Second-order steps with one evaluation in between: DPM-Solver-2, and the family it belongs to."""

from collections.abc import Sequence

from torch import Tensor

from geodiff.base.arguments import check_number
from geodiff.solvers.evaluation import Evaluate, Level, Step, combine
from geodiff.solvers.steps.euler import euler


def one_parameter(q: float) -> Step:
    """x' = x + h (eps_s / 2q + (1 - 1/2q) eps), h = sigma' - sigma, s = sigma'^q sigma^(1-q): second order.

    eps = (x - r(x; sigma)) / sigma; eps_s = (u - r(u; s)) / s at the Euler step u = x + (s - sigma) eps. Two
    evaluations. q = 1/2 is DPM-Solver-2 and q = 1 Heun; of the family in Karras et al. (2206.00364, algorithm 3) and
    DPM-Solver (2206.00927). A step to 0 is an Euler step.
    Raises TypeError or ValueError unless 0 < q <= 1: beyond, s would lie outside [sigma', sigma].
    """
    q = check_number(q, "q", 0.0, 1.0)

    def step(denoiser: Evaluate, at: Level, sigma_next: float, history: Sequence[Level] = ()) -> Tensor:
        if sigma_next == 0:
            return euler(denoiser, at, sigma_next)
        between = sigma_next**q * at.sigma ** (1 - q)
        h = sigma_next - at.sigma
        start = h * (1 - 0.5 / q) / at.sigma
        guess = euler(denoiser, at, between)
        turn = h * 0.5 / q / between
        terms = ((turn, guess), (1 + start, at.x), (-start, at.denoised))
        return combine(denoiser, guess, between, -turn, terms)

    step.__name__ = f"one-parameter:{q:g}"
    return step


def dpm_solver_2(denoiser: Evaluate, at: Level, sigma_next: float, history: Sequence[Level] = ()) -> Tensor:
    """x' = x + (sigma' - sigma) eps(u; s), s = sqrt(sigma sigma'), u = x + (s - sigma) eps: second order.

    The midpoint rule in log sigma; two evaluations (Lu et al., DPM-Solver, 2206.00927). A step to 0 is an Euler step.
    """
    return _MIDPOINT(denoiser, at, sigma_next, history)


_MIDPOINT = one_parameter(0.5)
