"""Symmetry breaking, and the covariance products and Lanczos steps that find it, against dense linear algebra."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from geodiff import OptimalDenoiser, reference, schedules, symmetry
from geodiff.analytic import GaussianDenoiser, MixtureDenoiser
from geodiff.covariance import PosteriorCovariance, covariance_product
from geodiff.lanczos import largest_eigenvalue

TWO_POINTS = torch.tensor([[-1.0], [1.0]])


def dense(data: Tensor, x: Tensor, sigma: float) -> Tensor:
    """Cov_w, [d, d] float64, for one x [*shape]."""
    points = reference.model_space(data, torch.float64).flatten(1)
    distances = (points - x.double().flatten()).square().sum(1)
    weights = (-distances / (2 * sigma**2)).softmax(0)
    centred = points - weights @ points
    return centred.T @ (weights[:, None] * centred)


@pytest.mark.parametrize("sigma", [0.05, 0.4, 3.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
def test_products_are_those_of_the_dense_covariance(dtype: torch.dtype, sigma: float) -> None:
    data = torch.randint(0, 256, (40, 2, 3), dtype=torch.uint8)
    data = data if dtype == torch.uint8 else torch.randn(40, 2, 3).to(dtype)
    x, v = torch.randn(2, 3, 2, 3, dtype=torch.float64)
    found = covariance_product(data, x, sigma, v)
    for b in range(3):
        expected = dense(data, x[b], sigma) @ v[b].flatten()
        assert torch.allclose(found[b].flatten(), expected, rtol=1e-10, atol=1e-13)


def test_the_covariance_is_the_jacobian() -> None:
    data, sigma = torch.randn(30, 5), 0.8
    x, v = torch.randn(2, 1, 5, dtype=torch.float64)
    _, product = torch.autograd.functional.jvp(lambda y: reference.denoise(y, data, sigma), x, v)
    assert torch.allclose(covariance_product(data, x, sigma, v) / sigma**2, product, rtol=1e-10, atol=1e-13)


def test_products_over_many_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    data, x, v = torch.randn(101, 7), torch.randn(4, 7), torch.randn(4, 7)
    whole = covariance_product(data, x, 1.5, v)
    monkeypatch.setattr("geodiff.covariance._TILE", 7 * 10)
    assert torch.allclose(covariance_product(data, x, 1.5, v), whole, rtol=1e-12, atol=1e-14)


def test_a_level_for_each_query() -> None:
    data, x, v = torch.randn(20, 5), torch.randn(2, 5), torch.randn(2, 5)
    both = covariance_product(data, x, torch.tensor([0.5, 2.0]), v)
    for b, sigma in enumerate((0.5, 2.0)):
        assert torch.allclose(both[b], covariance_product(data, x[b : b + 1], sigma, v[b : b + 1])[0], rtol=1e-12)


def test_lanczos_finds_the_largest_eigenvalue_of_each_in_the_batch() -> None:
    matrices = torch.randn(4, 60, 60, dtype=torch.float64)
    matrices = matrices @ matrices.transpose(1, 2)
    values, vectors = largest_eigenvalue(lambda v: torch.einsum("bij,bj->bi", matrices, v), torch.randn(4, 60))
    assert torch.allclose(values, torch.linalg.eigvalsh(matrices)[:, -1], rtol=1e-8)
    assert torch.allclose(torch.einsum("bij,bj->bi", matrices, vectors), values[:, None] * vectors, atol=1e-2)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(4).double())


@pytest.mark.parametrize("d", [1, 2, 9])
def test_lanczos_in_an_exhausted_space(d: int) -> None:
    """All multiples of one vector, the zero matrix and the identity are done after one product."""
    direction = torch.randn(d, dtype=torch.float64)
    matrices = torch.stack([torch.outer(direction, direction), torch.zeros(d, d).double(), torch.eye(d).double()])
    values, _ = largest_eigenvalue(lambda v: torch.einsum("bij,bj->bi", matrices, v), torch.randn(3, d))
    assert values.tolist() == pytest.approx([direction.square().sum().item(), 0, 1], abs=1e-12)


def test_lanczos_on_the_posterior_covariance() -> None:
    data, x = torch.randn(200, 3, 8), torch.randn(2, 3, 8)
    values, _ = largest_eigenvalue(PosteriorCovariance(data, x, 2.5), torch.randn(2, 3, 8))
    for b in range(2):
        assert values[b].item() == pytest.approx(torch.linalg.eigvalsh(dense(data, x[b], 2.5))[-1].item(), rel=1e-8)


def test_two_points_split_at_one() -> None:
    found = symmetry.critical_sigma(TWO_POINTS)
    assert found is not None
    assert found.sigma == pytest.approx(1, abs=1e-4)
    assert found.x.abs().item() < 1e-12
    assert found.direction.abs().item() == 1


@pytest.mark.parametrize("distance", [0.01, 3.0, 500.0])
def test_two_points_anywhere_split_at_half_their_distance(distance: float) -> None:
    axis = torch.nn.functional.normalize(torch.randn(5, dtype=torch.float64), dim=0)
    centre = torch.randn(5, dtype=torch.float64)
    found = symmetry.critical_sigma(torch.stack([centre - distance / 2 * axis, centre + distance / 2 * axis]))
    assert found is not None
    assert found.sigma == pytest.approx(distance / 2, rel=2e-4)
    assert (found.direction @ axis).abs().item() == pytest.approx(1, abs=1e-6)


def test_the_jacobian_is_one_where_a_fixed_point_is_watched() -> None:
    data = torch.cat([torch.randn(30, 4) + 2, torch.randn(30, 4) - 2])
    mean = data.double().mean(0)
    found = symmetry.critical_sigma(data, x=mean)
    assert found is not None
    largest = torch.linalg.eigvalsh(dense(data, mean, found.sigma))[-1].item()
    assert largest / found.sigma**2 == pytest.approx(1, abs=1e-3)
    for sigma in (1.2 * found.sigma, 2 * found.sigma):  # the highest such level
        assert torch.linalg.eigvalsh(dense(data, mean, sigma))[-1].item() < sigma**2


def test_a_single_point_never_splits() -> None:
    assert symmetry.critical_sigma(torch.ones(3, 4)) is None


def test_sde_values() -> None:
    assert symmetry.critical_sigma_sde(1.0) == pytest.approx(2**0.25, rel=1e-14)
    theta = math.sqrt(1 / (1 + symmetry.critical_sigma_sde(1.0) ** 2))
    assert theta == pytest.approx(math.sqrt(math.sqrt(2) - 1), rel=1e-14)
    for variance in (1e-9, 0.01, 2.0, 50.0):
        theta_squared = 1 / (1 + symmetry.critical_sigma_sde(variance) ** 2)
        # theta^4 + 2 v theta^2 - 1 = 0, the condition whose root it is
        assert theta_squared**2 + 2 * variance * theta_squared == pytest.approx(1, rel=1e-12)


def test_branches_are_the_solutions_of_the_hyperbolic_tangent() -> None:
    levels = [1.5, 1.2, 1.05, 0.95, 0.8, 0.5]
    branches = symmetry.bifurcation(OptimalDenoiser(TWO_POINTS), torch.zeros(1), torch.ones(1), levels)[..., 0]
    assert branches.shape == (6, 2)
    assert torch.allclose(branches[:, 0], -branches[:, 1], atol=1e-5)
    for sigma, x in zip(levels, branches[:, 1].tolist(), strict=True):
        low, high = 0.0 if sigma >= 1 else 1e-3, 1.0
        for _ in range(60):  # the largest root of tanh(x / sigma^2) = x
            middle = (low + high) / 2
            low, high = (middle, high) if math.tanh(middle / sigma**2) > middle else (low, middle)
        assert x == pytest.approx(low, abs=1e-4)


def test_a_fixed_point_is_a_mode() -> None:
    data = torch.randn(20, 3)
    found = symmetry.fixed_point(lambda x, s: reference.denoise(x, data, s), torch.randn(4, 3), 0.7)
    assert found.converged
    assert torch.allclose(reference.denoise(found.x, data, 0.7), found.x, atol=1e-8)
    assert not symmetry.fixed_point(lambda x, s: x + 1, torch.zeros(1, 3), 0.7, iterations=5).converged


def test_late_start_is_good_until_the_data_have_split() -> None:
    """Two narrow clusters at -1 and +1: any start above the critical level will do, none far below."""
    narrow = [
        GaussianDenoiser(torch.full((1,), c).double(), torch.eye(1).double(), torch.full((1,), 0.01)) for c in (-1, 1)
    ]
    denoiser = MixtureDenoiser(narrow, torch.zeros(2))
    gaussian = GaussianDenoiser(torch.zeros(1).double(), torch.eye(1).double(), torch.tensor([1.01]))

    def distance(samples: Tensor) -> float:
        """Wasserstein-1 to the mixture: sorted samples against its quantiles."""
        ranks = (torch.arange(len(samples) // 2).double() + 0.5) / (len(samples) // 2)
        quantiles = torch.cat([c + 0.1 * torch.special.ndtri(ranks) for c in (-1.0, 1.0)])
        return (samples[:, 0].sort().values - quantiles).abs().mean().item()

    starts = [20.0, 5.0, 2.0, 1.2, 0.5, 0.2, 0.1]
    found = symmetry.late_start(denoiser, gaussian, starts, schedules.karras(60, 0.002, 80.0), distance, count=2000)
    assert [result.sigma for result in found] == starts
    quality = {result.sigma: result.quality for result in found}
    assert max(quality[sigma] for sigma in (20.0, 5.0, 2.0)) < 0.05
    assert quality[0.1] > 5 * quality[2.0]
    assert quality[0.1] > quality[0.5]
    evaluations = [result.evaluations for result in found]
    assert evaluations == sorted(evaluations, reverse=True)


@pytest.mark.parametrize(
    ("name", "error", "call"),
    [
        ("v", ValueError, lambda: covariance_product(TWO_POINTS, torch.zeros(3, 1), 1.0, torch.zeros(2, 1))),
        ("x", ValueError, lambda: covariance_product(TWO_POINTS, torch.zeros(3, 2), 1.0, torch.zeros(3, 2))),
        ("start", ValueError, lambda: largest_eigenvalue(lambda v: v, torch.zeros(1, 3))),
        ("sigma", ValueError, lambda: symmetry.fixed_point(lambda x, s: x, torch.zeros(1, 3), 0.0)),
        ("variance", ValueError, lambda: symmetry.critical_sigma_sde(0.0)),
        ("tol", ValueError, lambda: symmetry.critical_sigma(TWO_POINTS, tol=0.0)),
        ("tol", TypeError, lambda: symmetry.critical_sigma(TWO_POINTS, tol="1e-4")),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_named(name: str, error: type[Exception], call: Callable[[], object]) -> None:
    with pytest.raises(error, match=rf"^{name}: expected .* found .*; allowed "):
        call()
