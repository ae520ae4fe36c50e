"""Score deviation where every distance is known: one data point, and a network that is off by a constant."""

import pytest
import torch
from torch import Tensor

from geodiff import OptimalDenoiser, schedules
from geodiff.analysis.score_deviation import score_deviation

SIGMAS = schedules.karras(9)[:-1]
POINT = torch.tensor([[0.5, -0.25, 1.0]])


def test_a_constant_error_is_found_again_and_its_states_part_linearly() -> None:
    error = torch.tensor([0.3, 0.0, -0.4])
    noise = 80 * torch.randn(5, 3, dtype=torch.float64)

    def optimal(x: Tensor, sigma: Tensor) -> Tensor:
        return POINT.double().expand_as(x)

    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1

    found = score_deviation(lambda x, sigma: optimal(x, sigma) + error, optimal, noise, SIGMAS, progress=count)
    same = torch.full((8, 5), 0.5, dtype=torch.float64)
    torch.testing.assert_close(found.at_learned, same, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.at_optimal, same, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.denoised, same, rtol=1e-6, atol=0)
    # Euler with a constant r keeps (x - r) / sigma, so the states part by (1 - sigma / sigma_0) |error|.
    parted = (0.5 * (1 - SIGMAS[:-1] / SIGMAS[0]))[:, None].expand(8, 5)
    torch.testing.assert_close(found.states, parted, rtol=1e-6, atol=1e-9)
    assert calls == 4 * 8


def test_the_optimal_denoiser_does_not_deviate_from_itself() -> None:
    optimal = OptimalDenoiser(torch.randn(20, 6))
    found = score_deviation(optimal, optimal, 80 * torch.randn(4, 6), SIGMAS)
    for part in (found.at_learned, found.at_optimal, found.states, found.denoised):
        assert part.shape == (8, 4)
        assert (part == 0).all()


def test_each_distance_is_between_the_right_two() -> None:
    # Not constant, so that at the learned and at the optimal state the errors differ.
    optimal = OptimalDenoiser(torch.randn(20, 6))

    def learned(x: Tensor, sigma: Tensor) -> Tensor:
        return 0.5 * optimal(x, sigma) + 0.01 * x

    found = score_deviation(learned, optimal, 80 * torch.randn(4, 6), SIGMAS)
    hat, star, sigma = found.learned.states[3], found.optimal.states[3], SIGMAS[3].float()
    expected = {
        "at_learned": learned(hat, sigma) - optimal(hat, sigma),
        "at_optimal": learned(star, sigma) - optimal(star, sigma),
        "states": hat - star,
        "denoised": learned(hat, sigma) - optimal(star, sigma),
    }
    for name, difference in expected.items():
        torch.testing.assert_close(getattr(found, name)[3], difference.double().norm(dim=1), rtol=1e-5, atol=1e-6)


def test_an_answer_that_would_broadcast_is_refused_in_both_passes() -> None:
    optimal, asked = OptimalDenoiser(torch.randn(20, 6)), 0

    def learned(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal asked
        asked += 1
        return x if asked <= 8 else x[:, :1]  # right along its own trajectory

    with pytest.raises(ValueError, match=r"^learned: expected an output of x's shape \[4, 6\] at sigma = 80, found"):
        score_deviation(learned, optimal, 80 * torch.randn(4, 6), SIGMAS)
