"""Visual quality: distances against their closed forms, and the nearest points against all distances."""

from typing import Literal

import pytest
import torch

from geodiff import OptimalDenoiser, backends
from geodiff.analysis.quality import PrincipalComponents, frechet_distance, kernel_distance, nearest
from geodiff.data import load
from geodiff.reference import model_space


def test_frechet_distance_of_a_shift_is_its_square() -> None:
    points, shift = torch.randn(50, 4, dtype=torch.float64), torch.tensor([1.0, -2.0, 0.5, 0.0])
    assert frechet_distance(points, points) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(points, points + shift) == pytest.approx(float(shift.square().sum()), rel=1e-9)


def test_frechet_distance_of_a_stretch_is_the_squared_change_of_the_deviations() -> None:
    points = torch.randn(400, 3, dtype=torch.float64)
    points = points - points.mean(0)
    stretched = 3 * points
    expected = 4 * float(torch.cov(points.T).trace())  # tr (3 - 1)^2 C
    assert frechet_distance(points, stretched) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_covariances_that_do_not_commute() -> None:
    a, b = torch.randn(60, 3, dtype=torch.float64), torch.randn(60, 3, dtype=torch.float64) @ torch.randn(3, 3).double()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    cross = torch.linalg.eigvals(cov_a @ cov_b).real.sqrt().sum()  # the same eigenvalues, without symmetric roots
    expected = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


def test_kernel_distance_is_the_mean_over_pairs() -> None:
    a, b = torch.randn(7, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64) + 1

    def kernel(u: torch.Tensor, v: torch.Tensor) -> float:
        return float((u @ v / 3 + 1) ** 3)

    def mean(u: torch.Tensor, v: torch.Tensor, same: bool) -> float:
        pairs = [kernel(p, q) for i, p in enumerate(u) for j, q in enumerate(v) if not (same and i == j)]
        return sum(pairs) / len(pairs)

    expected = mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False)
    assert kernel_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_tells_distributions_apart() -> None:
    same = kernel_distance(torch.randn(500, 4), torch.randn(500, 4))
    assert abs(same) < 0.1 * kernel_distance(torch.randn(500, 4), torch.randn(500, 4) + 1)


@pytest.mark.parametrize("wrong", [torch.zeros(3), torch.zeros(1, 4)])
def test_features_of_another_shape_are_refused(wrong: torch.Tensor) -> None:
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(ValueError, match=r"^b: "):
            distance(torch.randn(5, 4), wrong)
    with pytest.raises(ValueError, match=r"^b: expected k = 4"):
        frechet_distance(torch.randn(5, 4), torch.randn(5, 3))


@pytest.mark.parametrize("count", [1797, 20])  # more and fewer points than dimensions
def test_principal_components_keep_the_most_variance(count: int) -> None:
    data = load("digits").data[:count]
    features = PrincipalComponents(data, k=5)
    points = model_space(data, torch.float64).flatten(1)
    values = torch.linalg.svdvals(points - points.mean(0))[:5]
    torch.testing.assert_close(features(points.reshape(-1, 1, 8, 8)).norm(dim=0), values, rtol=1e-6, atol=1e-8)
    identity = torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(features.components.T @ features.components, identity, rtol=0, atol=1e-8)


def test_nearest_points_are_those_of_all_distances() -> None:
    data = load("digits").data
    x = model_space(data[::90], torch.float32) + 0.2 * torch.randn(20, 1, 8, 8)
    found = nearest(OptimalDenoiser(data), x)
    distances = torch.cdist(x.flatten(1).double(), model_space(data, torch.float64).flatten(1))
    expected, index = distances.topk(2, largest=False)
    assert torch.equal(found.index, index[:, 0])
    torch.testing.assert_close(found.distance, expected[:, 0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.second, expected[:, 1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", [name for name in ("reference", "cpu") if backends.is_available(name)])
@pytest.mark.parametrize("augment", [None, "hflip"])
@pytest.mark.parametrize(
    ("offset", "scale"),
    [(1.0, 1e-3), (1.0, 1e-4), (1.0, 1e-6), (0.0, 1e-20), (300.0, 0.1), (0.0, 1e15), (1e18, 1e15), (0.0, 0.0)],
)
def test_nearest_points_whatever_the_scale_of_the_data_and_their_offset(
    backend: str, augment: Literal["hflip"] | None, offset: float, scale: float
) -> None:
    """At sigma = 0.1 whatever the data, 97 of 100 queries were given a wrong row where points are 1e-4 apart."""
    data = offset + scale * torch.randn(1000, 1, 1, 64)
    data[::50] = offset + 30 * scale * torch.randn(20, 1, 1, 64)  # outliers say nothing about how near the others are
    x = data[torch.randint(0, 1000, (40,))] + 0.5 * scale * torch.randn(40, 1, 1, 64)
    x[0] += 1e4 * scale
    both = data.double()[None] if augment is None else torch.stack([data, data.flip(-1)]).double()
    distances = torch.stack([(x.double()[:, None] - one).flatten(2).norm(dim=2) for one in both]).amin(0)
    expected = distances.topk(2, largest=False).values
    found = nearest(OptimalDenoiser(data, augment=augment, backend=backend), x)
    torch.testing.assert_close(found.distance, expected[:, 0], rtol=1e-12, atol=0)
    torch.testing.assert_close(found.second, expected[:, 1], rtol=1e-12, atol=0)
    torch.testing.assert_close(distances.gather(1, found.index[:, None])[:, 0], expected[:, 0], rtol=1e-12, atol=0)


def test_nearest_points_of_few_that_differ() -> None:
    """Most rows are one: their spread says nothing. And where all are one, the first two are the nearest."""
    data = torch.full((300, 5), 0.1)
    data[7], data[250] = 0.2, 0.10001
    found = nearest(OptimalDenoiser(data), data[[250, 7, 0]])
    assert found.index.tolist() == [250, 7, 0]
    assert found.distance.tolist() == [0, 0, 0]
    assert found.second.tolist() == pytest.approx([1e-5 * 5**0.5, 0.1 * 5**0.5 - 1e-5 * 5**0.5, 0], rel=1e-2)
    left = torch.zeros(300)
    left[250] = -torch.inf
    tiny = OptimalDenoiser(1e-15 * data, log_weights=left)
    assert nearest(tiny, 1e-15 * data[[250, 7]]).index.tolist() == [0, 7]


@pytest.mark.parametrize("weights", ["one heavy point", "random", "some left out"])
def test_weights_do_not_move_the_nearest_point(weights: str) -> None:
    data, x = torch.randn(60, 3), torch.randn(40, 3)
    log_weights = 3 * torch.randn(60)
    if weights == "one heavy point":
        log_weights[7] = 1e5
    if weights == "some left out":
        log_weights[::3] = -torch.inf
    distances = torch.cdist(x.double(), data.double()).masked_fill(log_weights.isinf(), torch.inf)
    expected, index = distances.topk(2, largest=False)
    found = nearest(OptimalDenoiser(data, log_weights=log_weights), x)
    assert torch.equal(found.index, index[:, 0])
    torch.testing.assert_close(torch.stack([found.distance, found.second], 1), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 20])
def test_a_mirror_image_is_the_same_point(count: int) -> None:
    data, x = torch.randn(count, 2, 3, 4), torch.randn(30, 2, 3, 4)
    x[0] = data[-1].flip(-1)
    both = torch.stack([data, data.flip(-1)]).flatten(2).double()
    distances = torch.cdist(x.flatten(1).double(), both).amin(0)
    expected, index = torch.cat([distances, torch.full((30, 1), torch.inf)], 1).topk(2, largest=False)
    found = nearest(OptimalDenoiser(data, augment="hflip"), x)
    assert torch.equal(found.index, index[:, 0])
    torch.testing.assert_close(torch.stack([found.distance, found.second], 1), expected, rtol=1e-6, atol=1e-6)
    assert found.distance[0] < 1e-6


def test_copies_are_told_from_new_points() -> None:
    optimal = OptimalDenoiser(torch.tensor([[0.0], [3.0]]))
    found = nearest(optimal, torch.tensor([[0.1], [1.4], [2.9]]))
    assert found.copied.tolist() == [True, False, True]
    single = nearest(OptimalDenoiser(torch.zeros(1, 2)), torch.ones(1, 2))
    assert single.second.isinf().all()
    with pytest.raises(ValueError, match=r"^optimal: "):
        nearest(OptimalDenoiser(torch.zeros(2, 1), labels=torch.tensor([0, 1])), torch.zeros(1, 1))
