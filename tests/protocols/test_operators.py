"""What every linear operator keeps: list one in OPERATORS. Beside it stands tests/inverse/test_operators.py."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from geodiff.inverse import Bicubic, Blur, Inpainting, Linear, Operator, SuperResolution, gaussian_kernel
from tests.random_numbers import normal

SHAPE = (2, 12, 8)
UNEVEN = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))


def mixed() -> Linear:
    """A dense matrix without any structure, more rows than columns."""
    matrix = torch.randn(200, 192, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 14

    def forward(x: Tensor) -> Tensor:
        return x.flatten(1) @ matrix.to(x).T

    def adjoint(y: Tensor) -> Tensor:
        return (y @ matrix.to(y)).reshape(-1, *SHAPE)

    return Linear(forward, adjoint, SHAPE)


def through(operator: Operator) -> Linear:
    """An operator as two functions, which hides its closed form."""
    return Linear(operator.__call__, operator.adjoint, operator.shape)


#: how to make one for pictures of SHAPE
OPERATORS: dict[str, Callable[[], Operator]] = {
    "inpainting": lambda: Inpainting.random(SHAPE, 0.5, generator=torch.Generator().manual_seed(0)),
    "weighted mask": lambda: Inpainting(torch.linspace(-1, 2, 192).reshape(SHAPE)),
    "blur": lambda: Blur(gaussian_kernel(5, 1.5), SHAPE),
    "blur, uneven kernel": lambda: Blur(UNEVEN, SHAPE),
    "super-resolution": lambda: SuperResolution(4, gaussian_kernel(5, 1.5), SHAPE),
    "super-resolution, uneven kernel": lambda: SuperResolution(2, UNEVEN, SHAPE),
    "bicubic": lambda: Bicubic(2, SHAPE),
    "bicubic, not a divisor": lambda: Bicubic(5, SHAPE),
    "linear": mixed,
    "linear, of a blur": lambda: through(Blur(gaussian_kernel(5, 1.5), SHAPE)),
}


@pytest.fixture(params=list(OPERATORS))
def operator(request: pytest.FixtureRequest) -> Operator:
    return OPERATORS[request.param]()


def test_the_adjoint_is_one(operator: Operator) -> None:
    x, y = normal(5, *operator.shape), normal(5, *operator.measured, seed=1)
    ours, theirs = (operator(x) * y).flatten(1).sum(1), (x * operator.adjoint(y)).flatten(1).sum(1)
    scale = operator(x).flatten(1).norm(dim=1) * y.flatten(1).norm(dim=1)
    assert ((ours - theirs).abs() / scale).max() <= 1e-10


@pytest.mark.parametrize("rho", [1e-4, 0.1, 10.0])
def test_the_proximal_step_solves_its_normal_equations(operator: Operator, rho: float) -> None:
    x, y = normal(5, *operator.shape), normal(5, *operator.measured, seed=1)
    z = operator.proximal(x, y, rho)
    right = operator.adjoint(y) + rho * x
    left = operator.adjoint(operator(z)) + rho * z
    assert ((left - right).flatten(1).norm(dim=1) / right.flatten(1).norm(dim=1)).max() <= 1e-6


def test_the_proximal_step_is_the_minimum(operator: Operator) -> None:
    x, y, rho = normal(3, *operator.shape), normal(3, *operator.measured, seed=1), 0.3

    def cost(z: Tensor) -> Tensor:
        return (y - operator(z)).flatten(1).square().sum(1) + rho * (z - x).flatten(1).square().sum(1)

    z = operator.proximal(x, y, rho)
    for seed in range(4):
        assert (cost(z + 1e-3 * normal(3, *operator.shape, seed=10 + seed)) > cost(z)).all()


def test_the_norm_bounds_it_and_is_reached(operator: Operator) -> None:
    x = normal(64, *operator.shape)
    for _ in range(60):
        x = operator.adjoint(operator(x))
        x = x / x.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    reached = float(operator(x).flatten(1).norm(dim=1).max())
    assert 0.98 * operator.norm <= reached <= operator.norm * (1 + 1e-9)


def test_an_image_is_restored_whoever_is_beside_it(operator: Operator) -> None:
    x, y = normal(4, *operator.shape), normal(4, *operator.measured, seed=1)
    together = operator.proximal(x, y, 0.1)
    torch.testing.assert_close(operator.proximal(x[2:3], y[2:3], 0.1), together[2:3], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_it_answers_in_the_dtype_of_what_is_asked(operator: Operator, dtype: torch.dtype) -> None:
    x, y = normal(2, *operator.shape).to(dtype), normal(2, *operator.measured, seed=1).to(dtype)
    assert operator(x).dtype == operator.adjoint(y).dtype == operator.proximal(x, y, 0.1).dtype == dtype
    torch.testing.assert_close(operator(x).double(), operator(x.double()), rtol=1e-4, atol=1e-5)
    assert operator(x[:0]).shape == (0, *operator.measured)
    assert operator.adjoint(y[:0]).shape == (0, *operator.shape)
    nothing = operator.proximal(x[:0], y[:0], 0.1)
    assert nothing.shape == (0, *operator.shape)
    assert nothing.dtype == dtype


def test_autograd_follows(operator: Operator) -> None:
    x = normal(2, *operator.shape).requires_grad_()
    y = normal(2, *operator.measured, seed=1)
    (found,) = torch.autograd.grad((operator(x) * y).sum(), x)
    torch.testing.assert_close(found, operator.adjoint(y))


def test_bad_input_is_named(operator: Operator) -> None:
    x, y = normal(2, *operator.shape), normal(2, *operator.measured)
    with pytest.raises(ValueError, match=r"^x: expected shape"):
        operator(x[:, :1])
    with pytest.raises(ValueError, match=r"^y: expected shape"):
        operator.adjoint(y[..., :1, None])
    with pytest.raises(ValueError, match=r"^rho: "):
        operator.proximal(x, y, 0.0)
    with pytest.raises(ValueError, match=r"^y: expected as many"):
        operator.proximal(x, y[:1], 0.1)
