"""Symmetry breaking, and the Lanczos steps that find it, against dense linear algebra."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from geodiff import OptimalDenoiser, reference, schedules
from geodiff.analysis import symmetry
from geodiff.analysis.lanczos import largest_eigenvalue
from geodiff.analytic import GaussianDenoiser, GaussianMixtureDenoiser

TWO_POINTS = torch.tensor([[-1.0], [1.0]])


def dense(data: Tensor, x: Tensor, sigma: float) -> Tensor:
    """Cov_w, [d, d] float64, for one x [*shape]."""
    points = reference.model_space(data, torch.float64).flatten(1)
    distances = (points - x.double().flatten()).square().sum(1)
    weights = (-distances / (2 * sigma**2)).softmax(0)
    centred = points - weights @ points
    return centred.T @ (weights[:, None] * centred)


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
    values, _ = largest_eigenvalue(OptimalDenoiser(data).posterior(x, 2.5).covariance, torch.randn(2, 3, 8))
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


def test_float64_data_are_as_good_far_from_the_origin() -> None:
    """In float32 these two points would be one."""
    data = 1e6 + torch.tensor([[-1e-3], [1e-3]], dtype=torch.float64)
    found = symmetry.critical_sigma(data)
    watched = symmetry.critical_sigma(data, x=data.mean(0))
    for critical in (found, watched):
        assert critical is not None
        assert critical.sigma == pytest.approx(1e-3, rel=2e-4)
        assert critical.x.item() == pytest.approx(1e6, abs=1e-6)


def test_a_denoiser_stands_for_its_data() -> None:
    """More than 2^14 numbers, so that the packed kernels answer; and mirror images count as data."""
    data = torch.cat([torch.randn(150, 6, 10) + 1.5, torch.randn(150, 6, 10) - 1.5])
    mean = data.mean(0)
    plain, asked = symmetry.critical_sigma(data, x=mean), symmetry.critical_sigma(OptimalDenoiser(data), x=mean)
    assert plain is not None
    assert asked is not None
    assert asked.sigma == plain.sigma
    largest = torch.linalg.eigvalsh(dense(data, mean, asked.sigma))[-1].item()
    assert largest / asked.sigma**2 == pytest.approx(1, abs=3e-4)
    middle = (mean + mean.flip(-1)) / 2
    mirrored = symmetry.critical_sigma(OptimalDenoiser(data, augment="hflip"), x=middle)
    both = symmetry.critical_sigma(torch.cat([data, data.flip(-1)]), x=middle)
    assert mirrored is not None
    assert both is not None
    assert mirrored.sigma == pytest.approx(both.sigma, rel=1e-4)


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
    with pytest.raises(ValueError, match=r"^denoiser: at sigma = 0.7: expected finite values, found nan"):
        symmetry.fixed_point(lambda x, s: x * torch.nan, torch.zeros(1, 3), 0.7)


def test_fixed_points_are_found_to_more_than_the_kernels_tolerance() -> None:
    data = torch.randint(0, 256, (700, 40), dtype=torch.uint8)
    found = symmetry.fixed_point(OptimalDenoiser(data), torch.zeros(2, 40), 2.0)
    assert found.converged
    assert torch.allclose(reference.denoise(found.x, data, 2.0), found.x, atol=1e-8)


def test_late_start_is_good_until_the_data_have_split() -> None:
    """Two narrow clusters at -1 and +1: any start above the critical level will do, none far below."""
    narrow = [
        GaussianDenoiser(torch.full((1,), c).double(), torch.eye(1).double(), torch.full((1,), 0.01)) for c in (-1, 1)
    ]
    denoiser = GaussianMixtureDenoiser(narrow, torch.zeros(2))
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
        ("x", ValueError, lambda: symmetry.critical_sigma(TWO_POINTS, x=torch.zeros(2))),
        ("data", ValueError, lambda: symmetry.critical_sigma(torch.zeros(0, 3, dtype=torch.float64))),
        ("data", TypeError, lambda: symmetry.critical_sigma(torch.zeros(2, 1, dtype=torch.int64))),
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
