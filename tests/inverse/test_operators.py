"""Operators: the adjoint is one, the proximal step solves its normal equations, and A is what it says."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from geodiff.inverse import Bicubic, Blur, Inpainting, Linear, Operator, SuperResolution, gaussian_kernel

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


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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


# ---- that each is what it says ----


def test_blur_is_a_circular_convolution() -> None:
    x = normal(2, *SHAPE)
    kernel = gaussian_kernel(5, 1.5)
    padded = F.pad(x, (2, 2, 2, 2), mode="circular")
    expected = F.conv2d(padded, kernel.flip(0, 1).expand(2, 1, 5, 5), groups=2)
    torch.testing.assert_close(Blur(kernel, SHAPE)(x), expected, rtol=1e-12, atol=1e-12)


def test_super_resolution_is_blur_and_stride() -> None:
    x, kernel = normal(2, *SHAPE), gaussian_kernel(5, 1.5)
    torch.testing.assert_close(SuperResolution(4, kernel, SHAPE)(x), Blur(kernel, SHAPE)(x)[..., ::4, ::4])


def test_bicubic_is_what_torch_scales_down() -> None:
    x = normal(2, *SHAPE)
    expected = F.interpolate(x, scale_factor=0.5, mode="bicubic", antialias=True)
    torch.testing.assert_close(Bicubic(2, SHAPE)(x), expected, rtol=1e-12, atol=1e-12)


def test_gaussian_kernel_sums_to_one_and_has_its_width() -> None:
    kernel = gaussian_kernel(9, 2.0)
    assert float(kernel.sum()) == pytest.approx(1.0, abs=1e-14)
    assert float(kernel[4, 5] / kernel[4, 4]) == pytest.approx(float(torch.tensor(-1 / 8).exp()), rel=1e-6)


def test_random_masks_keep_their_share_in_all_channels() -> None:
    mask = Inpainting.random((3, 40, 40), 0.3, generator=torch.Generator().manual_seed(0)).mask
    assert torch.equal(mask[0], mask[2])
    assert 0.25 < float(mask.mean()) < 0.35


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Inpainting(torch.full(SHAPE, torch.nan)), r"^mask: "),
        (lambda: Inpainting.random(SHAPE, 1.5), r"^keep: "),
        (lambda: Blur(torch.ones(13, 3), SHAPE), r"^kernel: expected \[h, w\] no larger"),
        (lambda: Blur(torch.ones(3, 3), (12, 8)), r"^shape: "),
        (lambda: SuperResolution(5, torch.ones(3, 3), SHAPE), r"^factor: expected a divisor"),
        (lambda: Bicubic(9, SHAPE), r"^factor: "),
        (lambda: gaussian_kernel(4, 1.0), r"^size: "),
        (lambda: Linear(lambda x: 2 * x, lambda y: y, SHAPE), r"^adjoint: expected <A x, y>"),
        (lambda: Linear(lambda x: x, lambda y: y[..., :1], SHAPE), r"^adjoint: expected answers"),
    ],
)
def test_what_is_no_operator_is_refused(make: Callable[[], Operator], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_conjugate_gradients_that_do_not_arrive_say_so() -> None:
    """Eigenvalues over fourteen decades, which a thousand products do not tell apart."""
    shape = (1, 64, 64)
    weights = torch.logspace(0, -7, 64 * 64, dtype=torch.float64).reshape(shape)
    steep = Linear(lambda x: weights * x, lambda y: weights * y, shape, tol=1e-12)
    with pytest.raises(RuntimeError, match="conjugate gradients are"):
        steep.proximal(normal(1, *shape), normal(1, *shape, seed=1), 1e-14)
