"""The one data set whose flow is known exactly: two points, -1 and +1.

r*(x; sigma) = tanh(x / sigma^2), and the flow keeps Phi((x - 1)/sigma) + Phi((x + 1)/sigma) constant.
"""

import itertools

import pytest
import torch
from torch import Tensor

from geodiff import reference, schedules
from geodiff.solvers import sample

DATA = torch.tensor([[-1.0], [1.0]])
START, SIGMA_START = 10.0, 80.0

# x(sigma) from x(80) = 10.
PUBLISHED = {10: 1.256167, 3: 0.396385, 1.5: 0.234060, 1: 0.205545, 0.7: 0.237493, 0.3: 0.614625, 0.1: 0.871542}


def invariant(x: Tensor, sigma: Tensor) -> Tensor:
    return torch.special.ndtr((x - 1) / sigma) + torch.special.ndtr((x + 1) / sigma)


def exact(sigmas: Tensor) -> Tensor:
    """x(sigma) of the flow through x(80) = 10, by bisection: the invariant rises with x."""
    target = invariant(torch.tensor(START).double(), torch.tensor(SIGMA_START).double())
    low, high = torch.full_like(sigmas, -2 * START), torch.full_like(sigmas, 2 * START)
    for _ in range(100):
        middle = (low + high) / 2
        below = invariant(middle, sigmas) < target
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    return reference.denoise(x, DATA, sigma)


def solve(solver: str, steps: int, sigma_end: float) -> tuple[Tensor, Tensor]:
    """Levels and states [steps + 1] from x(80) = 10 down to sigma_end, in float64."""
    noise = torch.tensor([[START]], dtype=torch.float64)
    trajectory = sample(denoiser, noise, schedules.karras(steps + 1, sigma_end, SIGMA_START)[:-1], solver)
    return trajectory.sigmas, trajectory.states[:, 0, 0]


@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0, 3.0, 80.0])
def test_denoiser_is_the_hyperbolic_tangent(sigma: float) -> None:
    x = torch.linspace(-5, 5, 41, dtype=torch.float64)[:, None]
    assert torch.allclose(reference.denoise(x, DATA, sigma), torch.tanh(x / sigma**2), rtol=1e-12, atol=1e-14)


def test_bisection_gives_the_published_values() -> None:
    assert exact(torch.tensor(list(PUBLISHED)).double()).tolist() == pytest.approx(list(PUBLISHED.values()), abs=6e-7)


@pytest.mark.parametrize("sigma_end", list(PUBLISHED))
def test_heun_reaches_the_published_values(sigma_end: float) -> None:
    _, states = solve("heun", 600, sigma_end)
    assert states[-1].item() == pytest.approx(PUBLISHED[sigma_end], abs=5e-5)


@pytest.mark.parametrize("sigma_end", [0.1, 0.3])
@pytest.mark.parametrize(("solver", "ratio"), [("euler", 2), ("heun", 4)])
def test_twice_the_steps_cut_the_error_by_the_order(solver: str, ratio: int, sigma_end: float) -> None:
    errors = []
    for steps in (64, 128, 256, 512):
        sigmas, states = solve(solver, steps, sigma_end)
        errors.append((states - exact(sigmas)).abs().max().item())
    assert [coarse / fine for coarse, fine in itertools.pairwise(errors)] == pytest.approx([ratio] * 3, rel=0.03)


def test_the_invariant_is_kept() -> None:
    sigmas, states = solve("heun", 600, 0.1)
    kept = invariant(states, sigmas)
    assert torch.allclose(kept, kept[:1].expand_as(kept), rtol=0, atol=1e-4)


def test_the_flow_is_odd_and_ends_at_the_points() -> None:
    noise = torch.tensor([[-10.0], [0.0], [10.0]], dtype=torch.float64)
    states = sample(denoiser, noise, schedules.karras(40)).states
    assert torch.equal(states[:, 0], -states[:, 2])
    assert torch.equal(states[:, 1], torch.zeros_like(states[:, 1]))
    assert states[-1].flatten().tolist() == [-1.0, 0.0, 1.0]
