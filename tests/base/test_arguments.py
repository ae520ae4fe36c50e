"""Argument checks: everything that should pass does, and each refusal has the right type and names the argument."""

import math

import numpy as np
import pytest
import torch

from geodiff.base import arguments


@pytest.mark.parametrize(
    "sigma",
    [
        2,
        2.0,
        np.float32(2),
        np.int64(2),
        torch.tensor(2),
        torch.tensor(2.0, dtype=torch.float16),
        torch.tensor([2.0]),
        torch.full((1, 1, 1, 1), 2.0),
        torch.full((3,), 2.0),
        torch.full((3, 1), 2.0),
        torch.full((3, 1, 1, 1), 2.0),
        np.array(2.0),
        np.full((3, 1), 2, dtype=np.int32),
    ],
    ids=lambda sigma: f"{type(sigma).__name__}{list(getattr(sigma, 'shape', ''))}",
)
def test_sigma_takes_every_form_that_diffusion_code_uses(sigma: object) -> None:
    levels = arguments.check_sigma(sigma, 3)
    assert levels.dtype == torch.float64
    assert levels.tolist() == [2.0, 2.0, 2.0]


def test_sigma_keeps_the_order_of_the_queries_and_the_digits_of_float64() -> None:
    sigma = np.array([1e-3, 0.1, 1e3])
    assert arguments.check_sigma(sigma[:, None], 3).tolist() == sigma.tolist()
    assert arguments.check_sigma(0.1, 1).item() == 0.1


@pytest.mark.parametrize("sigma", [1.0, torch.tensor(1.0), torch.ones(1), torch.ones(0), torch.ones(0, 1, 1, 1)])
def test_sigma_of_an_empty_batch(sigma: float | torch.Tensor) -> None:
    assert arguments.check_sigma(sigma, 0).shape == (0,)


def test_sigma_out_of_range_by_a_rounding_is_shown_as_it_is() -> None:
    """1e-12 in float32 is less than 1e-12, which "found 1e-12; allowed 1e-12 <= sigma" did not say."""
    with pytest.raises(ValueError, match=r"^sigma: .* found 9.99999996e-13; allowed 1e-12 <= sigma"):
        arguments.check_sigma(torch.tensor(1e-12), 1)


def test_sigma_passes_gradients_on() -> None:
    sigma = torch.tensor(2.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(arguments.check_sigma(sigma, 3).sum(), sigma)
    assert gradient == 3


@pytest.mark.parametrize(
    ("sigma", "error"),
    [
        (0.0, ValueError),
        (-1.0, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        (10**400, ValueError),
        (arguments.SIGMA_MIN / 2, ValueError),
        (arguments.SIGMA_MAX * 2, ValueError),
        (torch.tensor([1.0, -1.0, 1.0]), ValueError),
        (torch.tensor([1.0, math.nan, 1.0]), ValueError),
        (torch.ones(4), ValueError),
        (torch.ones(3, 2), ValueError),
        (torch.ones(1, 3), ValueError),
        (torch.ones(0), ValueError),
        (True, TypeError),
        (np.True_, TypeError),
        (1j, TypeError),
        ("1.0", TypeError),
        (None, TypeError),
        ([1.0, 1.0, 1.0], TypeError),
        (torch.ones(3, dtype=torch.bool), TypeError),
        (torch.ones(3, dtype=torch.complex64), TypeError),
        (np.array(["1.0"]), TypeError),
    ],
)
def test_sigma_refuses(sigma: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^sigma: expected .* found .*; allowed "):
        arguments.check_sigma(sigma, 3)


@pytest.mark.parametrize(
    ("x", "error"),
    [
        (np.zeros((2, 3, 4)), TypeError),
        (torch.zeros(2, 3, 4, dtype=torch.int64), TypeError),
        (torch.zeros(2, 3, 4, dtype=torch.float16), TypeError),
        (torch.zeros(2, 3, 4, dtype=torch.complex64), TypeError),
        (torch.zeros(2, 3, 4).to_sparse(), TypeError),
        (torch.zeros(3, 4), ValueError),
        (torch.zeros(2, 4, 3), ValueError),
        (torch.zeros(2, 3, 4, 1), ValueError),
        (torch.zeros(2, 12), ValueError),
        (torch.full((2, 3, 4), math.nan), ValueError),
        (torch.full((2, 3, 4), -math.inf), ValueError),
    ],
)
def test_query_refuses(x: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^x: expected .* found .*; allowed "):
        arguments.check_query(x, (3, 4))


def test_query_is_handed_back_as_it_is() -> None:
    x = torch.zeros(3, 2, 4).transpose(0, 1)
    assert arguments.check_query(x, (3, 4)) is x
    assert arguments.check_query(x[:0], (3, 4)).shape == (0, 3, 4)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ([["a"]], TypeError),
        ([[1, 2]], TypeError),
        ([[1.0], [1.0, 2.0]], ValueError),
        ({1.0}, TypeError),
        ("data.npy", TypeError),
        (torch.zeros(5, 2, device="meta"), ValueError),
        (torch.zeros(5, 2, dtype=torch.int32), TypeError),
        (torch.zeros(5, 2, dtype=torch.bool), TypeError),
        (torch.zeros(5, 2).to_sparse(), TypeError),
        (torch.zeros(5), ValueError),
        (torch.tensor(1.0), ValueError),
        (torch.zeros(0, 2), ValueError),
        (torch.zeros(5, 0), ValueError),
        (torch.zeros(5, 3, 0), ValueError),
    ],
)
def test_data_refuses(data: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^data: expected .* found .*; allowed "):
        arguments.check_data(data)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_finite_names_the_row(dtype: torch.dtype, bad: float) -> None:
    value = torch.zeros(7, 2, 3, dtype=dtype)
    arguments.check_finite(value, "data")
    value[4, 1, 2] = bad
    with pytest.raises(ValueError, match=rf"^data: expected finite values, found {bad} in row 104;"):
        arguments.check_finite(value, "data", first_row=100)


def test_finite_passes_what_cannot_be_otherwise() -> None:
    arguments.check_finite(torch.zeros(0, 3), "x")
    arguments.check_finite(torch.zeros(2, 3, dtype=torch.uint8), "data")
    arguments.check_finite(torch.full((2, 3), torch.finfo(torch.float32).max), "x")


@pytest.mark.parametrize(
    ("topk", "error"), [(-1, ValueError), (6, ValueError), (1.0, TypeError), (True, TypeError), ("1", TypeError)]
)
def test_topk_refuses(topk: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^topk: expected .* found .*; allowed 0\.\.5"):
        arguments.check_topk(topk, 5)


def test_topk_takes_any_integer_in_range() -> None:
    assert [arguments.check_topk(topk, 5) for topk in (0, 5, np.int64(2))] == [0, 5, 2]


@pytest.mark.parametrize(
    ("log_weights", "error"),
    [
        ([0.0, 0.0], ValueError),
        (["a", "b", "c"], TypeError),
        ({0.0}, TypeError),
        (torch.zeros(3, dtype=torch.int64), TypeError),
        (torch.zeros(2), ValueError),
        (torch.zeros(3, 1), ValueError),
        (torch.tensor([0.0, math.nan, 0.0]), ValueError),
        (torch.tensor([0.0, math.inf, 0.0]), ValueError),
        (torch.full((3,), -math.inf), ValueError),
    ],
)
def test_log_weights_refuses(log_weights: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^log_weights: expected .* found .*; allowed "):
        arguments.check_log_weights(log_weights, 3)


def test_log_weights_are_normalised() -> None:
    weights = arguments.check_log_weights(torch.tensor([1000.0, 1000.0, -math.inf]), 3)
    assert weights.tolist() == [-math.log(2), -math.log(2), -math.inf]


@pytest.mark.parametrize(
    "values", [[0.1, 0.3], (0.1, 0.3), np.array([0.1, 0.3]), torch.tensor([0.1, 0.3], dtype=torch.float64)]
)
def test_reals_keep_the_digits_of_float64(values: object) -> None:
    assert arguments.check_reals(values, "sigmas", "[S]", 1).tolist() == [0.1, 0.3]


def test_reals_take_a_read_only_array_without_a_warning() -> None:
    values = np.ones(2)
    values.flags.writeable = False
    assert arguments.check_reals(values, "sigmas", "[S]", 1).tolist() == [1.0, 1.0]


def test_values_that_are_not_there_yet_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a CUDA graph records a call, which a look would end."""
    bad = torch.full((2,), torch.nan)
    monkeypatch.setattr(arguments, "captured", lambda value: True)
    arguments.check_finite(bad, "x")
    arguments.check_levels(bad)


@pytest.mark.parametrize(
    ("ends", "allowed", "taken"),
    [
        ("()", "0 < rho < 1", [0.5]),
        ("[)", "0 <= rho < 1", [0.0, 0.5]),
        ("(]", "0 < rho <= 1", [0.5, 1.0]),
        ("[]", "0 <= rho <= 1", [0.0, 0.5, 1.0]),
    ],
)
def test_a_number_may_have_the_ends_that_belong_to_its_range(
    ends: arguments.Ends, allowed: str, taken: list[float]
) -> None:
    for value in (0.0, 0.5, 1.0, -1e-300, 1 + 1e-15, math.nan, math.inf):
        if value in taken:
            assert arguments.check_number(value, "rho", 0.0, 1.0, ends=ends) == value
            continue
        with pytest.raises(ValueError, match=r"^rho: expected a number in range, found ") as refused:
            arguments.check_number(value, "rho", 0.0, 1.0, ends=ends)
        assert str(refused.value).endswith(f"; allowed {allowed}")


@pytest.mark.parametrize(
    ("low", "high", "ends", "allowed"),
    [
        (0.0, math.inf, "(]", "rho > 0"),
        (0.0, math.inf, "[)", "rho >= 0"),
        (-math.inf, 2.0, "[]", "rho <= 2"),
        (-math.inf, 2.0, "()", "rho < 2"),
        (-math.inf, math.inf, "[]", "any finite rho"),
    ],
)
def test_a_range_without_an_end_is_told_without_it(low: float, high: float, ends: arguments.Ends, allowed: str) -> None:
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match=f"; allowed {allowed}$"):
            arguments.check_number(value, "rho", low, high, ends=ends)


def test_numbers_are_real_and_what_float64_does_not_hold_is_out_of_range() -> None:
    assert arguments.check_number(np.float32(0.5), "rho", 0.0) == 0.5
    for value in (True, "1", None, 1j, torch.tensor(1.0)):
        with pytest.raises(TypeError, match=r"^rho: expected a real number, found .*; allowed rho > 0$"):
            arguments.check_number(value, "rho", 0.0)
    for value, found in ((10**400, "inf"), (-(10**400), "-inf")):
        with pytest.raises(ValueError, match=rf"^rho: expected a number in range, found {found}; allowed rho > 0"):
            arguments.check_number(value, "rho", 0.0)
