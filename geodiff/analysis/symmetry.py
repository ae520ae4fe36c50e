"""Spontaneous symmetry breaking: where the one fixed point of the denoiser splits, and how late sampling may start.

Two critical values go by one name. Here `critical_sigma` is that of the probability-flow ODE and of mean shift: the
level at which the fixed point r*(x; sigma) = x splits in the VE parametrisation. `critical_sigma_sde` is that of the
potential of the VP SDE (Raya and Ambrogioni, 2305.19693). For two points -1, +1 they are 1 and 2^(1/4).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from geodiff.analysis.analytic import GaussianDenoiser
from geodiff.analysis.lanczos import largest_eigenvalue
from geodiff.base.answers import check_answer
from geodiff.base.arguments import check_data, check_integer, check_number, check_reals
from geodiff.base.posterior import Posterior
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.solvers import Denoiser, Step, sample
from geodiff.solvers.sampling import check_schedule

__all__ = [
    "CriticalSigma",
    "FixedPoint",
    "LateStart",
    "bifurcation",
    "critical_sigma",
    "critical_sigma_sde",
    "fixed_point",
    "late_start",
]

_ALL_ALIKE = 1e9  # a noise level at which all points weigh the same: Cov_w is the covariance of the data

# Data whose standard deviation is below this, relatively, are one point: what is left of it is rounding.
_NO_SPREAD = 1e-9


class FixedPoint(NamedTuple):
    """x [B, *shape] float64; iterations made; converged: whether no row still moved by more than was asked."""

    x: Tensor
    iterations: int
    converged: bool


class CriticalSigma(NamedTuple):
    """sigma of the ODE (see the module); x and direction [*shape] float64: the point that splits, and along what."""

    sigma: float
    x: Tensor
    direction: Tensor


class LateStart(NamedTuple):
    """sigma: where sampling started; quality of its samples; evaluations that it took."""

    sigma: float
    quality: float
    evaluations: int


@torch.no_grad()
def fixed_point(
    denoiser: Denoiser, x: Tensor, sigma: float, *, tol: float = 1e-9, iterations: int = 2000
) -> FixedPoint:
    """x <- r(x; sigma) until |r - x| <= tol (1 + |x|) in every row: mean shift with bandwidth sigma (Cheng 1995).

    x [B, *shape]; sigma > 0. Converges to a mode of p_sigma, the slower the closer sigma is to where modes split.
    An OptimalDenoiser is asked in float64 throughout: errors of its tol would keep points moving by as much.
    """
    sigma = check_number(sigma, "sigma", 0.0)
    check_integer(iterations, "iterations", 1)
    x = x.double()
    for done in range(1, iterations + 1):
        if isinstance(denoiser, OptimalDenoiser):
            following = _posterior(denoiser, x, sigma).mean.detach()
        else:
            answer = check_answer(denoiser(x, x.new_tensor(sigma)), x, "denoiser", f"sigma = {sigma:g}")
            following = answer.double()
        moved = (following - x).flatten(1).norm(dim=1)
        x = following
        if bool((moved <= tol * (1 + x.flatten(1).norm(dim=1))).all()):
            return FixedPoint(x, done, True)
    return FixedPoint(x, iterations, False)


@torch.no_grad()
def critical_sigma(
    data: Tensor | OptimalDenoiser, *, x: Tensor | None = None, tol: float = 1e-4
) -> CriticalSigma | None:
    """The highest sigma with lambda_max(Cov_w(x; sigma)) = sigma^2: where the Jacobian Cov_w / sigma^2 of r* reaches 1.

    There the fixed point r*(x; sigma) = x loses its stability and splits, for the **ODE** and mean shift; two points
    -1, +1 split at sigma = 1 (derived; the SDE's value is `critical_sigma_sde`).
    data  [N, *shape] as OptimalDenoiser takes them, or float64; or such a denoiser
    x     [*shape], a point to look at for every sigma; None: the fixed point itself, followed by mean shift from the
          mean of the data downwards. In data without symmetry that branch may run into one mode and never split, as a
          pitchfork does when it is bent; a fixed x, such as the mean, then says where the others come up beside it
    tol   relative error of sigma

    Levels are tried downwards, from 1.05 times the largest standard deviation of the data in steps of 5 %, and then
    bisected; lambda_max is Lanczos', each of whose products is a pass over the data in float64: no weight is kept.
    None if there is no such level above a 100th of the first: nothing splits.
    """
    tol = check_number(tol, "tol", 0.0)
    origin: Tensor | float = 0.0
    if isinstance(data, Tensor) and data.dtype == torch.float64:
        # The kernels read float32: from the mean on, that is as good beside the spread of the data.
        origin = check_data(data).mean(0)
        data, x = (data - origin).float(), None if x is None else x - origin
    optimal = data if isinstance(data, OptimalDenoiser) else OptimalDenoiser(data)
    mean = _posterior(optimal, optimal.mean[None], _ALL_ALIKE).mean.detach()
    point = mean if x is None else x.double()[None]
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(point.shape, generator=generator, dtype=torch.float64, device="cpu").to(point.device)

    def largest(sigma: float) -> float:
        nonlocal direction
        value, direction = largest_eigenvalue(_posterior(optimal, point, sigma).covariance, direction, iterations=200)
        return value.item()

    def excess(sigma: float) -> float:
        nonlocal point
        if x is None:
            point = fixed_point(optimal, point, sigma).x
        return largest(sigma) - sigma**2

    high = 1.05 * math.sqrt(largest(_ALL_ALIKE))
    if high <= _NO_SPREAD * (1 + mean.norm().item()):
        return None
    while excess(high) >= 0:
        high *= 1.05
    lowest = high / 100
    low = high / 1.05
    while excess(low) < 0:
        high, low = low, low / 1.05
        if low <= lowest:
            return None
    while high - low > tol / 4 * low:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if excess(middle) >= 0 else (low, middle)
    return CriticalSigma(math.sqrt(low * high), point[0] + origin, direction[0])


def _posterior(denoiser: OptimalDenoiser, x: Tensor, sigma: float) -> Posterior:
    """The posterior in float64 throughout, as the denoiser answers points that autograd follows."""
    with torch.enable_grad():
        return denoiser.posterior(x.detach().double().requires_grad_(), sigma)


def critical_sigma_sde(variance: float) -> float:
    """sigma_c = sqrt(1 / theta^2 - 1), theta^2 = sqrt(1 + v^2) - v: where the potential of the VP **SDE** splits.

    variance v > 0, that of the data in each direction: 1 for two points -1, +1 (theta = sqrt(sqrt 2 - 1) = .6436, so
    sigma_c = 2^(1/4)), r^2 / d for a sphere of radius r in R^d. theta = sqrt(abar) of the process. Raya and Ambrogioni,
    2305.19693; the sphere is derived here. The ODE's value is `critical_sigma`.
    """
    variance = check_number(variance, "variance", 0.0)
    # 1 / theta^2 = sqrt(1 + v^2) + v; minus 1 without cancelling for small v.
    return math.sqrt(variance + variance**2 / (math.sqrt(1 + variance**2) + 1))


@torch.no_grad()
def bifurcation(
    denoiser: Denoiser,
    x: Tensor,
    direction: Tensor,
    sigmas: Tensor | Sequence[float],
    *,
    offset: float = 1e-3,
    iterations: int = 2000,
) -> Tensor:
    """The fixed points r(x; sigma) = x on either side, float64 [L, 2, *shape]: one above the critical level, two below.

    x, direction [*shape]: the point that splits and along what, as of `critical_sigma`. At each of the levels sigmas
    [L], falling, both branches are nudged by -+ offset along the direction (as noise would) and follow mean shift.
    The distance between the branches is the order parameter. See `fixed_point`.
    """
    levels: list[float] = check_reals(sigmas, "sigmas", "[L]", at_least=1).tolist()
    unit = direction.double() / direction.double().norm()
    nudge = torch.stack([-unit, unit]) * offset
    points = x.double().expand(2, *x.shape)
    branches = []
    for level in levels:
        points = fixed_point(denoiser, points + nudge, level, iterations=iterations).x
        branches.append(points)
    return torch.stack(branches)


def late_start(
    denoiser: Denoiser,
    gaussian: GaussianDenoiser,
    starts: Tensor | Sequence[float],
    sigmas: Tensor | Sequence[float],
    quality: Callable[[Tensor], float],
    *,
    count: int = 256,
    solver: str | Step = "heun",
    seed: int = 0,
    progress: Callable[[LateStart], object] = lambda _: None,
) -> list[LateStart]:
    """Draw x ~ N(mu, Cov + sigma^2) at each start level, run the solver from there, and judge the samples.

    Above the critical level the noised data are nearly this Gaussian, and quality does not depend on the start; below
    it they have split, and quality collapses (Gaussian late start, Raya and Ambrogioni, 2305.19693).
    gaussian  of the data, as `GaussianDenoiser.fit` makes it
    starts    [L] levels above 0 and sigmas[-1]; sigmas the schedule [S + 1], of which the levels below a start are used
    quality   samples [count, *shape] -> a number; the same noise is used at every start, so that curves are smooth
    """
    levels = check_schedule(sigmas)
    results = []
    for start in check_reals(starts, "starts", "[L]", at_least=1).tolist():
        noise = gaussian.sample(count, start, generator=torch.Generator().manual_seed(seed))
        trajectory = sample(denoiser, noise, [start, *(level for level in levels if level < start)], solver, "end")
        results.append(LateStart(start, quality(trajectory.states[-1]), int(trajectory.metadata["evaluations"])))
        progress(results[-1])
    return results
