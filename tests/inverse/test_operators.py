"""That each operator is what it says. What all of them keep stands in tests/protocols/test_operators.py."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from geodiff.inverse import Bicubic, Blur, Inpainting, Linear, Operator, SuperResolution, gaussian_kernel
from tests.random_numbers import normal

SHAPE = (2, 12, 8)


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


@pytest.mark.parametrize("width", [1e-320, 1e-200, 1e200])
def test_gaussian_kernel_of_any_width(width: float) -> None:
    """width^2 is 0 or infinite, and 0 / 0 was NaN."""
    kernel = gaussian_kernel(3, width)
    expected = torch.full((3, 3), 1 / 9, dtype=torch.float64) if width > 1 else F.one_hot(torch.tensor(4), 9).double()
    torch.testing.assert_close(kernel, expected.reshape(3, 3))


@pytest.mark.parametrize("d", [60, 200])  # less than Lanczos' vectors, and more
def test_the_norm_of_a_linear_map_is_a_bound(d: int) -> None:
    """Of a spectrum that ends gradually, where iteration from below is slow: 2 of 300 were up to 0.7 % too low."""
    for seed in range(40):
        matrix = normal(d * 2 // 3, d, seed=seed) / d**0.5
        matrix[0] = 0
        found = Linear(lambda x, a=matrix: x @ a.T, lambda y, a=matrix: y @ a, (d,)).norm
        largest = float(torch.linalg.matrix_norm(matrix, 2))
        assert largest <= found <= 1.01 * largest
    assert Linear(lambda x: 0 * x, lambda y: 0 * y, (d,)).norm == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Inpainting(torch.full(SHAPE, torch.nan)), r"^mask: "),
        (lambda: Inpainting.random(SHAPE, 1.5), r"^keep: "),
        (lambda: Blur(torch.ones(13, 3), SHAPE), r"^kernel: expected \[h, w\] no larger"),
        (lambda: Blur(torch.ones(3, 3), (12, 8)), r"^shape: "),
        (lambda: Blur(torch.ones(3, 3), (0, 12, 8)), r"^shape: "),
        (lambda: Linear(lambda x: x, lambda y: y, ()), r"^shape: "),
        (lambda: Linear(lambda x: torch.nan * x, lambda y: y, (4,)), r"^adjoint: "),
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


@pytest.mark.parametrize("shape", [4, (1.5, 4, 4), "abc"])
def test_shapes_are_whole_numbers(shape: Any) -> None:
    for make in (lambda: Blur(torch.ones(3, 3), shape), lambda: Linear(lambda x: x, lambda y: y, shape)):
        with pytest.raises(TypeError, match=r"^shape: expected .* found .*; allowed "):
            make()


def test_conjugate_gradients_that_do_not_arrive_say_so() -> None:
    """Eigenvalues over fourteen decades, which a thousand products do not tell apart."""
    shape = (1, 64, 64)
    weights = torch.logspace(0, -7, 64 * 64, dtype=torch.float64).reshape(shape)
    steep = Linear(lambda x: weights * x, lambda y: weights * y, shape, tol=1e-12)
    with pytest.raises(RuntimeError, match="conjugate gradients are"):
        steep.proximal(normal(1, *shape), normal(1, *shape, seed=1), 1e-14)
