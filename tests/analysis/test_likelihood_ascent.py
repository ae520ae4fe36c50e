"""Likelihood ascent: the condition, and what follows from it."""

import pytest
import torch
from torch import Tensor

from geodiff import OptimalDenoiser, reference
from geodiff.analysis.likelihood_ascent import likelihood_ascent

DATA = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))


def exact(x: Tensor, sigma: float | Tensor) -> Tensor:
    return reference.denoise(x, DATA, sigma)


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


def test_an_answer_that_is_none_is_said_to_be_the_networks() -> None:
    x = torch.randn(3, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"^learned: at sigma = 1: expected finite values, found nan"):
        likelihood_ascent(OptimalDenoiser(DATA), lambda point, sigma: point * torch.nan, x, 1.0, 0.5)
