"""What says how far an answer is off: in float64, against a hundredth of the largest point, and never let by a NaN."""

import math

import pytest
import torch

from geodiff.reference import contract

EXACT = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)


def test_an_error_is_relative_to_the_answer_and_of_a_small_one_to_the_largest_point() -> None:
    found = EXACT + torch.tensor([[0.0, 0.5], [0.0, 0.5]])
    assert contract.errors(found, EXACT, 10.0).tolist() == pytest.approx([0.5 / 5, 0.5 / 0.1])
    assert contract.largest_error(found, EXACT, 10.0) == pytest.approx(5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_infinitely_far_off(bad: float) -> None:
    found = EXACT.clone()
    found[1, 0] = bad
    assert contract.errors(found, EXACT, 10.0).tolist() == [0.0, math.inf]
    assert contract.largest_error(found, EXACT, 10.0) == math.inf
    pixels = contract.pixel_errors(found[:, :, None, None], EXACT[:, :, None, None], torch.ones(1, 1))
    assert pixels.flatten().tolist() == [0.0, math.inf]
    assert contract.log_prob_errors(torch.tensor([bad]), EXACT[0, :1]).item() == math.inf


def test_it_is_taken_in_float64_whatever_is_compared() -> None:
    exact = torch.full((1, 3, 2), 1.0)
    found = exact.double() + 1e-9  # which float32 does not tell from 1
    assert contract.largest_error(found, exact, 1.0) == pytest.approx(1e-9)
    assert contract.largest_error(found.half(), exact, 1.0) == 0


def test_of_data_that_are_all_zero_a_right_answer_is_right() -> None:
    assert contract.largest_error(torch.zeros(2, 3), torch.zeros(2, 3), contract.largest_norm(torch.zeros(5, 3))) == 0


def test_there_is_no_error_of_no_queries() -> None:
    assert contract.largest_error(torch.empty(0, 3), torch.empty(0, 3), 1.0) == 0


def test_log_prob_may_be_off_by_a_number_and_a_share() -> None:
    exact = torch.tensor([0.0, -1e6])
    assert contract.log_prob_errors(exact + 1.001, exact).tolist() == pytest.approx([1001, 1], rel=1e-3)


def test_the_largest_norm_is_that_of_the_points_in_model_space(monkeypatch: pytest.MonkeyPatch) -> None:
    data = torch.randint(0, 256, (29, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data[-1] = 0
    monkeypatch.setattr(contract, "_PART", 60)
    assert contract.largest_norm(data) == pytest.approx(math.sqrt(12), rel=1e-15)
    assert contract.largest_norm(data.transpose(1, 2)) == pytest.approx(math.sqrt(12), rel=1e-15)
    far = torch.tensor([[3e30, 4e30], [0, 0]])  # whose squares float32 does not hold
    assert contract.largest_norm(far) == pytest.approx(5e30)
