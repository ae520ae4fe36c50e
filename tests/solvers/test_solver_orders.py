"""Every solver against what defines it: its finite difference of the denoising trajectory, and its order."""

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from geodiff import schedules
from geodiff.analytic import two_point_flow
from geodiff.solvers import (
    SOLVERS,
    Evaluator,
    Level,
    Step,
    deis,
    dpm_solver_2,
    dpm_solver_pp_2m,
    euler,
    heun,
    ipndm,
    one_parameter,
)

SIGMA_P, SIGMA, AFTER = 3.0, 2.0, 0.9
Implied = Callable[[Tensor, Tensor, Level], Tensor]


class Placed(Evaluator):
    """A denoiser in a loop that keeps the next state in `place`."""

    def __init__(self, denoiser: Callable[[Tensor, float], Tensor], place: Tensor) -> None:
        self.denoiser, self.place = denoiser, place

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return self.denoiser(x, sigma)


def curved(x: Tensor, sigma: float) -> Tensor:
    """A denoiser without any symmetry that could hide an error."""
    return torch.tanh(x / (1 + sigma**2)) + 0.3 * torch.cos(x + sigma) / (1 + sigma)


def eps(x: Tensor, r: Tensor, sigma: float) -> Tensor:
    return (x - r) / sigma


def stage(x: Tensor, r: Tensor, s: float) -> Tensor:
    """r(u; s) at the Euler step u from x at SIGMA to s."""
    return curved(x + (s - SIGMA) * eps(x, r, SIGMA), s)


def family(q: float) -> Implied:
    s = AFTER**q * SIGMA ** (1 - q)
    return lambda x, r, _: SIGMA * (stage(x, r, s) - r) / (q * s * (AFTER - SIGMA))


MIDDLE = math.sqrt(SIGMA * AFTER)

# The derivative dr/dsigma that each update contains, written as the table of these samplers has it.
IMPLIED: dict[str, tuple[Step, Implied]] = {
    "euler": (euler, lambda x, r, p: torch.zeros_like(x)),
    "heun": (heun, lambda x, r, p: SIGMA / AFTER * (stage(x, r, AFTER) - r) / (AFTER - SIGMA)),
    "dpm2": (
        dpm_solver_2,
        lambda x, r, p: 2 * SIGMA / (AFTER + MIDDLE) * (stage(x, r, MIDDLE) - r) / (MIDDLE - SIGMA),
    ),
    "q = 0.3": (one_parameter(0.3), family(0.3)),
    "q = 0.5": (one_parameter(0.5), family(0.5)),
    "q = 1": (one_parameter(1), family(1)),
    "ipndm2": (ipndm(2), lambda x, r, p: -SIGMA * (eps(x, r, SIGMA) - eps(p.x, p.denoised, SIGMA_P)) / (AFTER - SIGMA)),
    "deis1": (deis(1), lambda x, r, p: -SIGMA * (eps(x, r, SIGMA) - eps(p.x, p.denoised, SIGMA_P)) / (SIGMA - SIGMA_P)),
    "dpmpp2m": (
        dpm_solver_pp_2m,
        lambda x, r, p: math.log(SIGMA / AFTER) / math.log(SIGMA_P / SIGMA) * (r - p.denoised) / (AFTER - SIGMA),
    ),
}


@pytest.mark.parametrize("name", IMPLIED)
def test_the_update_is_its_finite_difference_of_the_denoising_trajectory(name: str) -> None:
    """x' = (s'/s) x + ((s - s')/s) (r + (s' - s) r' / 2)."""
    step, implied = IMPLIED[name]
    before = torch.randn(5, 4, dtype=torch.float64)
    previous = Level(SIGMA_P, before, curved(before, SIGMA_P))
    x = before + 0.1 * torch.randn(5, 4, dtype=torch.float64)
    r = curved(x, SIGMA)
    following = step(curved, Level(SIGMA, x, r), AFTER, [previous])
    found = 2 * ((following - AFTER / SIGMA * x) * SIGMA / (SIGMA - AFTER) - r) / (AFTER - SIGMA)
    assert torch.allclose(found, implied(x, r, previous), rtol=0, atol=1e-10)


@pytest.mark.parametrize("order", [3, 4])
def test_ipndm_weighs_as_published(order: int) -> None:
    weights = {3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}[order]
    levels = (2.0, 3.0, 3.5, 7.0)[:order]
    visited = [Level(sigma, *torch.randn(2, 5, 4, dtype=torch.float64)) for sigma in levels]
    slope = sum(w * eps(v.x, v.denoised, v.sigma) for w, v in zip(weights, visited, strict=True))
    now = visited[0]
    found = ipndm(order)(curved, now, AFTER, visited[:0:-1])
    assert torch.allclose(found, now.x + (AFTER - now.sigma) * slope, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis_integrates_polynomials_exactly(order: int) -> None:
    levels = (2.0, 3.0, 3.5, 7.0)[: order + 1]

    def slope(sigma: float) -> Tensor:
        return torch.tensor([[0.7 * sigma**order - 1.3 * sigma + 0.2]], dtype=torch.float64)

    def integral(sigma: float) -> float:
        return 0.7 * sigma ** (order + 1) / (order + 1) - 1.3 * sigma**2 / 2 + 0.2 * sigma

    visited = [Level(sigma, torch.ones(1, 1).double(), 1 - sigma * slope(sigma)) for sigma in levels]
    now = visited[0]
    found = deis(order)(curved, now, AFTER, visited[:0:-1])
    assert found.item() == pytest.approx(1 + integral(AFTER) - integral(2.0), abs=1e-12)


def denoise(x: Tensor, sigma: float) -> Tensor:
    """`geodiff.analytic.two_point` without its checks, which would take most of the time here."""
    return torch.tanh(x / sigma**2)


def error(step: Step, levels: Sequence[float], known: int) -> float:
    """At the last level, of the flow through x(80) = 10; the first `known` levels behind the start are exact.

    So a multistep method has its own order from the first step on, not that of the steps which start it.
    """
    exact = two_point_flow(torch.tensor([10.0]).double(), 80.0, torch.tensor(levels, dtype=torch.float64))
    history = [Level(sigma, x[None], denoise(x[None], sigma)) for sigma, x in zip(levels[:known], exact, strict=False)]
    x = exact[known][None]
    for sigma, after in itertools.pairwise(levels[known:]):
        at = Level(sigma, x, denoise(x, sigma))
        following = step(denoise, at, after, history)
        history.append(at)
        x = following
    return abs(x.item() - exact[-1].item())


ORDERS = {
    "euler": 1,
    "heun": 2,
    "dpm2": 2,
    "one-parameter": 2,
    "ipndm2": 2,
    "ipndm3": 3,
    "ipndm4": 4,
    "deis1": 2,
    "deis2": 3,
    "deis3": 4,
    "dpmpp2m": 2,
}


def test_every_solver_has_its_order_tested() -> None:
    assert sorted(ORDERS) == sorted(SOLVERS)


@pytest.mark.parametrize("solver", ORDERS)
def test_order_of_convergence_on_two_points(solver: str) -> None:
    """Levels at even distances, for which all the weights are made."""
    errors = []
    for steps in (100, 200, 400):
        levels = torch.linspace(4.0, 0.7, steps + 1, dtype=torch.float64).tolist()
        errors.append(error(SOLVERS[solver], levels, known=3))
    orders = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert orders == pytest.approx([ORDERS[solver]] * 2, abs=0.2), errors


@pytest.mark.parametrize("solver", ORDERS)
def test_order_of_convergence_on_karras_levels(solver: str) -> None:
    """The weights of iPNDM are those of even steps: on other levels they leave order 2."""
    expected = 2 if solver.startswith("ipndm") else ORDERS[solver]
    errors = []
    for steps in (200, 400):
        levels = schedules.karras(steps + 1, 0.5, 10.0)[:-1].tolist()
        errors.append(error(SOLVERS[solver], levels, known=3))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(expected, abs=0.2), errors


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_the_next_state_is_built_in_its_place_and_x_stays(solver: str) -> None:
    x = torch.randn(5, 4, dtype=torch.float64)
    history = [Level(SIGMA_P, x + 1, curved(x + 1, SIGMA_P))]
    denoised = curved(x, SIGMA)
    kept = [x.clone(), denoised.clone(), history[0].x.clone(), history[0].denoised.clone()]
    place = torch.full_like(x, math.nan)
    alone = SOLVERS[solver](curved, Level(SIGMA, x, denoised), AFTER, history)
    assert SOLVERS[solver](Placed(curved, place), Level(SIGMA, x, denoised), AFTER, history) is place
    assert torch.equal(place, alone)
    for before, after in zip(kept, [x, denoised, *history[0][1:]], strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_a_step_can_be_differentiated(solver: str) -> None:
    def endpoint(x: Tensor) -> Tensor:
        history = [Level(SIGMA_P, x + 1, curved(x + 1, SIGMA_P))]
        return SOLVERS[solver](curved, Level(SIGMA, x, curved(x, SIGMA)), AFTER, history)

    assert torch.autograd.gradcheck(endpoint, torch.randn(2, 3, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_a_denoiser_that_answers_with_its_own_input(solver: str) -> None:
    """Where eps = 0 nothing moves, also when the answer is the very tensor that the step builds its result in."""
    x = torch.randn(5, 4, dtype=torch.float64)
    history = [Level(SIGMA_P, x, x)]
    found = SOLVERS[solver](Placed(lambda y, _: y, torch.empty_like(x)), Level(SIGMA, x, x), AFTER, history)
    assert torch.allclose(found, x, rtol=1e-14)


@pytest.mark.parametrize(
    ("name", "error_type", "call"),
    [
        ("q", ValueError, lambda: one_parameter(0)),
        ("q", ValueError, lambda: one_parameter(1.5)),
        ("q", TypeError, lambda: one_parameter("1")),  # type: ignore[arg-type]
        ("order", ValueError, lambda: ipndm(1)),
        ("order", ValueError, lambda: ipndm(5)),
        ("order", ValueError, lambda: deis(0)),
        ("order", TypeError, lambda: deis(1.0)),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_named(name: str, error_type: type[Exception], call: Callable[[], object]) -> None:
    with pytest.raises(error_type, match=rf"^{name}: expected .* found .*; allowed "):
        call()
