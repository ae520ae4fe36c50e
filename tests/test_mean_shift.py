"""The optimal denoiser as a mean shift, and the likelihood that it climbs."""

import pytest
import torch
from torch import Tensor

from geodiff import OptimalDenoiser, reference, sample, schedules
from geodiff.likelihood_ascent import likelihood_ascent
from geodiff.mean_shift import mean_shift, partial_step

DATA = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))


def exact(x: Tensor, sigma: float | Tensor) -> Tensor:
    return reference.denoise(x, DATA, sigma)


def test_mean_shift_vector_is_the_scaled_gradient_of_log_p() -> None:
    x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(reference.posterior(x, DATA, 0.7).log_prob.sum(), x)
    shifted = mean_shift(exact, x.detach(), 0.7, 1)
    torch.testing.assert_close(shifted[1] - shifted[0], 0.7**2 * gradient, rtol=1e-9, atol=1e-12)


def test_mean_shift_never_descends_and_stops_at_a_mode() -> None:
    x = torch.randn(6, 4, dtype=torch.float64)
    iterates = mean_shift(exact, x, 0.8, 300)
    likelihood = torch.stack([reference.posterior(point, DATA, 0.8).log_prob for point in iterates])
    assert iterates.shape == (301, 6, 4)
    assert (likelihood.diff(dim=0) >= -1e-12).all()
    assert (likelihood[-1] > likelihood[0]).all()
    torch.testing.assert_close(exact(iterates[-1], 0.8), iterates[-1], rtol=0, atol=1e-5)
    assert torch.equal(mean_shift(exact, x, 0.8, 0)[0], x)
    with pytest.raises(ValueError, match=r"^steps: "):
        mean_shift(exact, x, 0.8, -1)


def test_an_euler_trajectory_is_a_mean_shift_with_falling_bandwidth() -> None:
    sigmas = schedules.karras(12)
    trajectory = sample(exact, 80 * torch.randn(5, 4, dtype=torch.float64), sigmas, "euler")
    x = trajectory.states[0]
    for sigma, following in zip(sigmas.tolist(), sigmas.tolist()[1:], strict=False):
        x = partial_step(exact, x, sigma, following)
    torch.testing.assert_close(x, trajectory.states[-1], rtol=1e-9, atol=1e-9)


def test_likelihood_rises_wherever_the_condition_is_met() -> None:
    optimal = OptimalDenoiser(DATA)
    sigma = 1.5
    x = DATA[torch.randint(30, (200,))].double() + sigma * torch.randn(200, 4, dtype=torch.float64)
    error = 2 * torch.rand(200, 1, dtype=torch.float64) * torch.nn.functional.normalize(torch.randn_like(x), dim=1)

    def learned(point: Tensor, level: Tensor) -> Tensor:
        best = exact(point, level)
        return best + error * (best - point).norm(dim=1, keepdim=True)

    found = likelihood_ascent(optimal, learned, x, sigma, 0.9)
    assert 0.3 < float(found.close.double().mean()) < 0.7, "the errors are up to twice the condition"
    assert found.holds.all()
    at_start = reference.posterior(x, DATA, sigma).log_prob
    torch.testing.assert_close(found.at_start, at_start, rtol=1e-5, atol=1e-3)
    step = x + (1 - 0.9 / sigma) * (learned(x, x.new_tensor(sigma)) - x)
    torch.testing.assert_close(found.at_step, reference.posterior(step, DATA, sigma).log_prob, rtol=1e-5, atol=1e-3)


def test_a_denoiser_that_runs_away_descends_and_does_not_meet_the_condition() -> None:
    x = torch.randn(20, 4, dtype=torch.float64)
    found = likelihood_ascent(OptimalDenoiser(DATA), lambda point, sigma: point + 100, x, 1.0, 0.5)
    assert not found.close.any()
    assert (found.at_denoised < found.at_start).all()
    assert found.holds.all(), "the proposition says nothing of these"
