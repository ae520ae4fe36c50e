"""torchdiffeq's odeint on the probability flow: down to sigma_min, and from there a jump."""

from types import ModuleType

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import OptimalDenoiser, adapters, schedules

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0


def solve(odeint, denoiser, x: Tensor, sigma_min: float = SIGMA_MIN, **options: object) -> Tensor:
    times = torch.tensor([SIGMA_MAX, sigma_min], dtype=torch.float64).log()
    return odeint(adapters.probability_flow(denoiser), x, times, **options)[-1]


def test_dopri5_ends_where_our_heun_does(
    torchdiffeq: ModuleType, digits: OptimalDenoiser, noise: Tensor, nearest, heun_ends
) -> None:
    start = SIGMA_MAX * noise.double()
    stopped = solve(torchdiffeq.odeint, digits, start, method="dopri5", rtol=1e-5, atol=1e-5)
    jumped = digits(stopped, SIGMA_MIN)
    index, distance = nearest(jumped)
    # The jump takes off the noise that is left: of norm 0.002 sqrt(64) = 0.016, more or less.
    assert nearest(stopped)[1].min() > 1e-3
    assert distance.max() < 1e-5
    share = (index == heun_ends(SIGMA_MAX)).double().mean().item()
    print(f"dopri5: {share:.1%}")
    assert share >= 0.95


def test_states_agree_along_the_way(torchdiffeq: ModuleType, digits: OptimalDenoiser, noise: Tensor) -> None:
    """Not only the ends: at levels on the way, against our Heun in 400 steps."""
    sigmas = schedules.karras(401)[:-1]
    start = SIGMA_MAX * noise[:8].double()
    ours = geodiff.sample(digits, start, sigmas).states[::80]
    flow = adapters.probability_flow(digits)
    theirs = torchdiffeq.odeint(flow, start, sigmas[::80].log(), method="dopri5", rtol=1e-8, atol=1e-8)
    assert theirs.shape == ours.shape
    assert torch.allclose(theirs, ours, rtol=0, atol=5e-3)


def test_the_exact_flow_of_two_points(torchdiffeq: ModuleType) -> None:
    """Phi((x - 1)/sigma) + Phi((x + 1)/sigma) is constant; published: x(0.3) = 0.614625 from x(80) = 10."""
    two = OptimalDenoiser(torch.tensor([[-1.0], [1.0]]), tol=1e-6, backend="reference")
    start = torch.tensor([[10.0]], dtype=torch.float64)
    end = solve(torchdiffeq.odeint, two, start, 0.3, method="dopri5", rtol=1e-9, atol=1e-9)
    assert end.item() == pytest.approx(0.614625, abs=1e-6)


def test_why_the_flow_is_in_log_sigma(torchdiffeq: ModuleType, digits: OptimalDenoiser, noise: Tensor) -> None:
    """dopri5 steps beyond the end and interpolates back: in sigma that is below 0, in ln(sigma) it is not."""
    levels: list[float] = []

    def watched(x: Tensor, sigma: Tensor) -> Tensor:
        levels.append(float(sigma))
        return digits(x, sigma)

    start = SIGMA_MAX * noise[:4].double()
    solve(torchdiffeq.odeint, watched, start, method="dopri5", rtol=1e-3, atol=1e-3)
    assert 0 < min(levels) < SIGMA_MIN

    with pytest.raises(ValueError, match="sigma: expected a positive, finite noise level, found -"):
        torchdiffeq.odeint(
            lambda sigma, x: (x - digits(x, sigma)) / sigma,
            start,
            torch.tensor([SIGMA_MAX, SIGMA_MIN], dtype=torch.float64),
            method="dopri5",
            rtol=1e-3,
            atol=1e-3,
        )
