"""Steps of dx/dt = v(x, t) along any path of `geodiff.paths`, by the velocity's own coefficients.

On a path x_t = alpha x_0 + sigma n the velocity is a x + b r with a = sigma' / sigma and b = alpha' - a alpha. All of
it in the time u since the data, 0 at the data and 1 at the noise, in which a step goes from u to u' < u; so what steps
call sigma is u here. On the linear path a = 1/u and b = -1/u, those of dx/dsigma, and every solver of that ODE serves.
"""

from collections.abc import Sequence

from torch import Tensor

from geodiff.backends.combination import Term
from geodiff.paths import Path
from geodiff.solvers.evaluation import Evaluate, Level, Step, blend, combine

METHODS = ("euler", "heun", "midpoint")


def along_path(path: Path, method: str) -> Step:
    """euler: x' = x + h v; heun: x + h (v + v~)/2; midpoint: x + h v(x + h v/2, u + h/2); h = u' - u, v = a x + b r.

    path: in convention A. Heun's step to the data, where v is not defined, is an Euler step.
    """

    def rates(u: float) -> tuple[float, float]:
        scales = path.at(u)
        return float(scales.d_sigma / scales.sigma), float(scales.slope)

    def straight(at: Level, h: float) -> list[Term]:
        a, b = rates(at.sigma)
        return [(1 + h * a, at.x), (h * b, at.denoised)]

    def euler(denoiser: Evaluate, at: Level, u_next: float, history: Sequence[Level] = ()) -> Tensor:
        return blend(denoiser, straight(at, u_next - at.sigma))

    def heun(denoiser: Evaluate, at: Level, u_next: float, history: Sequence[Level] = ()) -> Tensor:
        guess = euler(denoiser, at, u_next)
        if u_next == 0:
            return guess
        half = (u_next - at.sigma) / 2
        (a, b), (a_next, b_next) = rates(at.sigma), rates(u_next)
        # x + half (a x + b r + a' guess + b' r'), and guess = (1 + 2 half a) x + 2 half b r
        terms = ((1 + half * a_next, guess), (-half * a, at.x), (-half * b, at.denoised))
        return combine(denoiser, guess, u_next, half * b_next, terms)

    def midpoint(denoiser: Evaluate, at: Level, u_next: float, history: Sequence[Level] = ()) -> Tensor:
        h, middle = u_next - at.sigma, (at.sigma + u_next) / 2
        between = blend(denoiser, straight(at, h / 2))
        a, b = rates(middle)
        return combine(denoiser, between, middle, h * b, ((h * a, between), (1.0, at.x)))

    return {"euler": euler, "heun": heun, "midpoint": midpoint}[method]
