"""The exact posterior over the data: brute force, point by point, and trajectories that end in draws from it."""

import math

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff.inverse import Blur, ExactPosterior, Inpainting, Operator, Problem, SuperResolution, gaussian_kernel

SHAPE = (1, 8, 8)
DATA = torch.randint(0, 256, (30, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
OPERATORS: dict[str, Operator] = {
    "inpainting": Inpainting.random(SHAPE, 0.3, generator=torch.Generator().manual_seed(1)),
    "blur": Blur(gaussian_kernel(5, 2.0), SHAPE),
    "super-resolution": SuperResolution(4, gaussian_kernel(5, 2.0), SHAPE),
}


def measured(name: str, sigma: float, dtype: torch.dtype = torch.float64) -> Problem:
    truth = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(2), dtype=dtype) * 2 - 1
    return Problem.simulated(OPERATORS[name], truth, sigma, generator=torch.Generator().manual_seed(3))


def brute_force(problem: Problem) -> tuple[Tensor, Tensor]:
    """Weights [B, N] and mean, one data point after the other, in Python's floats."""
    points = [DATA[i : i + 1].double() / 127.5 - 1 for i in range(len(DATA))]
    weights, means = [], []
    for y in problem.y.double():
        logits = []
        for point in points:
            apart = (y - problem.operator(point)[0]).flatten().tolist()
            logits.append(-math.fsum(a * a for a in apart) / (2 * problem.sigma**2))
        largest = max(logits)
        total = math.fsum(math.exp(logit - largest) for logit in logits)
        weights.append([math.exp(logit - largest) / total for logit in logits])
        means.append(sum(w * point[0] for w, point in zip(weights[-1], points, strict=True)))
    return torch.tensor(weights, dtype=torch.float64), torch.stack(means)  # type: ignore[arg-type]


@pytest.mark.parametrize("sigma", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("name", OPERATORS)
def test_it_equals_brute_force(name: str, sigma: float) -> None:
    problem = measured(name, sigma)
    found = ExactPosterior(DATA, problem)
    weights, mean = brute_force(problem)
    assert (found.weights - weights).abs().max() <= 1e-9
    assert (found.mean - mean).abs().max() <= 1e-9
    torch.testing.assert_close(found.ess, 1 / weights.square().sum(1), rtol=1e-9, atol=0)
    assert torch.equal(found.nearest, weights.argmax(1))


def test_data_tile_by_tile_are_the_same_data(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = measured("blur", 1.0)
    whole = ExactPosterior(DATA, problem).mean
    monkeypatch.setattr("geodiff.inverse.exact_posterior._TILE", 64 * 7)
    torch.testing.assert_close(ExactPosterior(DATA, problem).mean, whole, rtol=0, atol=1e-14)


def test_draws_have_its_weights_and_are_data() -> None:
    exact = ExactPosterior(DATA, measured("super-resolution", 1.0))
    draws = exact.sample(4000, generator=torch.Generator().manual_seed(4))
    assert draws.shape == (4000, 4, *SHAPE)
    mean = draws.mean(0)
    spread = draws.std(0).max() / math.sqrt(4000)
    assert (mean - exact.mean).abs().max() < 5 * spread


def test_its_denoiser_is_the_posterior_mean_of_both_measurements() -> None:
    problem = measured("inpainting", 0.7)
    exact = ExactPosterior(DATA, problem)
    x = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    points = DATA.double() / 127.5 - 1
    apart = (x[:, None] - points).flatten(2).square().sum(2) / (2 * 0.9**2)
    fits = (problem.y[:, None] - problem.operator(points)).flatten(2).square().sum(2) / (2 * 0.7**2)
    expected = ((-apart - fits).softmax(1) @ points.flatten(1)).reshape(x.shape)
    torch.testing.assert_close(exact.denoise(x, 0.9), expected, rtol=0, atol=1e-9)


def test_its_denoiser_rounds_to_the_dtype_of_x_alone() -> None:
    double, single = (measured("blur", 0.7, dtype) for dtype in (torch.float64, torch.float32))
    exact = ExactPosterior(DATA, Problem(double.operator, single.y, 0.7))
    x = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = ExactPosterior(DATA, Problem(double.operator, single.y.double(), 0.7)).denoise(x, 0.9)
    torch.testing.assert_close(exact.denoise(x, 0.9), expected, rtol=0, atol=1e-9)
    assert exact.denoise(x.float(), 0.9).dtype == exact.mean.dtype == torch.float32


def test_one_measurement_serves_any_number_of_points() -> None:
    problem = measured("inpainting", 0.7)
    x = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    first = Problem(problem.operator, problem.y[:1], 0.7)
    together = ExactPosterior(DATA, first).denoise(x, 0.9)
    torch.testing.assert_close(ExactPosterior(DATA, problem).denoise(x, 0.9)[:1], together[:1])
    torch.testing.assert_close(ExactPosterior(DATA, first).denoise(x[2:3], 0.9), together[2:3])


def test_its_trajectories_end_in_draws_from_it() -> None:
    """From 600 noises on, the share that ends in each data point is its weight."""
    problem = measured("super-resolution", 1.5)
    one = Problem(problem.operator, problem.y[:1].expand(600, *problem.y.shape[1:]), problem.sigma)
    exact = ExactPosterior(DATA, one)
    noise = 80 * torch.randn(600, *SHAPE, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    ends = geodiff.sample(exact.denoise, noise, geodiff.schedules.karras(40)).states[-1]
    points = (DATA.double() / 127.5 - 1).flatten(1)
    distance, index = torch.cdist(ends.flatten(1), points).min(1)
    assert distance.max() < 1e-3
    share = torch.bincount(index, minlength=30) / 600
    error = (share - exact.weights[0]).abs()
    assert (error <= 4 * (exact.weights[0] / 600).sqrt() + 1 / 600).all()


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"^data: expected points of \(1, 8, 8\)"):
        ExactPosterior(DATA[:, :, :4], measured("blur", 1.0))
    for count in (0, 1, 3, 5):
        with pytest.raises(ValueError, match=rf"^x: expected a point for each measurement, B = 4, found {count}; "):
            ExactPosterior(DATA, measured("blur", 1.0)).denoise(torch.zeros(count, *SHAPE), 0.7)
    with pytest.raises(ValueError, match=r"^count: "):
        ExactPosterior(DATA, measured("blur", 1.0)).sample(0)
    with pytest.raises(ValueError, match=r"^sigma: "):
        measured("blur", 0.0)
    with pytest.raises(TypeError, match=r"^operator: "):
        Problem("blur", torch.zeros(1, *SHAPE), 1.0)  # type: ignore[arg-type]
