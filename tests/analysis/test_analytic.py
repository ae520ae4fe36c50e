"""The denoisers in closed form against the formula, the reference, numerical solutions and published values."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import reference, schedules
from geodiff.analytic import GaussianDenoiser, GaussianMixtureDenoiser, two_point, two_point_flow, two_point_invariant
from geodiff.solvers import SOLVERS, sample

# x(sigma) of the two-point flow from x(80) = 10.
PUBLISHED = {10: 1.256167, 3: 0.396385, 1.5: 0.234060, 1: 0.205545, 0.7: 0.237493, 0.3: 0.614625, 0.1: 0.871542}
START = torch.tensor([10.0], dtype=torch.float64)


def random_gaussian(shape: tuple[int, ...] = (2, 3), k: int = 6) -> GaussianDenoiser:
    d = torch.Size(shape).numel()
    basis = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64))[0][:, :k]
    return GaussianDenoiser(torch.randn(shape, dtype=torch.float64), basis, torch.rand(k).double() * 4)


def covariance(gaussian: GaussianDenoiser) -> Tensor:
    return gaussian.basis @ torch.diag(gaussian.variances) @ gaussian.basis.T


# ---- two points ----


def test_two_point_flow_gives_the_published_values() -> None:
    found = two_point_flow(START, 80.0, torch.tensor(list(PUBLISHED), dtype=torch.float64))
    assert found.shape == (7, 1)
    assert found[:, 0].tolist() == pytest.approx(list(PUBLISHED.values()), abs=1e-6)


@pytest.mark.parametrize("solver", ["deis2", "deis3"])
@pytest.mark.parametrize("sigma_end", list(PUBLISHED))
def test_a_solver_gives_the_published_values(solver: str, sigma_end: float) -> None:
    levels = schedules.karras(501, sigma_end, 80.0)[:-1]
    states = sample(lambda x, sigma: torch.tanh(x / sigma**2), START[None], levels, solver).states
    assert states[-1].item() == pytest.approx(PUBLISHED[sigma_end], abs=1e-5)


def test_two_point_is_the_optimal_denoiser_and_its_flow_solves_the_ode() -> None:
    data = torch.tensor([[-1.0], [1.0]])
    x = torch.linspace(-5, 5, 21, dtype=torch.float64)[:, None]
    for sigma in (0.3, 1.0, 8.0):
        assert torch.allclose(two_point(x, sigma), reference.denoise(x, data, sigma), rtol=1e-12, atol=1e-14)
    sigmas = torch.tensor([2.0 + 1e-4, 2.0, 2.0 - 1e-4], dtype=torch.float64)
    after, now, before = two_point_flow(START, 80.0, sigmas)
    slope = (now - two_point(now[None], 2.0)[0]) / 2.0
    assert ((after - before) / 2e-4).item() == pytest.approx(slope.item(), abs=1e-6)


def test_two_point_flow_keeps_its_invariant_upwards_too() -> None:
    x, sigmas = torch.tensor([-0.4, 0.0, 1.1]).double(), torch.tensor([0.5, 2.0, 9.0]).double()
    found = two_point_flow(x, 0.5, sigmas)
    kept = two_point_invariant(found, sigmas[:, None])
    assert torch.allclose(kept, kept[:1].expand(3, 3), atol=1e-13)
    assert torch.allclose(found[0], x, atol=1e-12)


def test_two_point_flow_of_no_points() -> None:
    assert two_point_flow(torch.zeros(0), 1.0, torch.tensor([1.0, 0.5])).shape == (2, 0)


# ---- one Gaussian ----


@pytest.mark.parametrize("sigma", [0.1, 0.01, 0.002])
def test_log_prob_of_a_basis_in_float32(sigma: float) -> None:
    """As |x - mu|^2 - |inside|^2 over sigma^2 what is outside of the basis was off by up to 0.13."""
    data = torch.where(torch.rand(60, 784) > 0.8, 1.0, -1.0)
    x = data[:5].double() + sigma * torch.randn(5, 784, dtype=torch.float64)
    dtypes = (torch.float32, torch.float64)
    found, exact = (GaussianDenoiser.fit(data, dtype=dtype).log_prob(x, sigma) for dtype in dtypes)
    assert (found - exact).abs().max() <= 1e-3


@pytest.mark.parametrize("k", [6, 4, 0])
@pytest.mark.parametrize("sigma", [0.05, 1.0, 30.0])
def test_gaussian_denoiser_is_the_wiener_filter(k: int, sigma: float) -> None:
    gaussian = random_gaussian(k=k)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    noisy = covariance(gaussian) + sigma**2 * torch.eye(6, dtype=torch.float64)
    centred = (x - gaussian.mean).flatten(1)
    expected = gaussian.mean + (centred @ torch.linalg.solve(noisy, covariance(gaussian))).reshape(x.shape)
    assert torch.allclose(gaussian(x, sigma), expected, atol=1e-12)
    normal = torch.distributions.MultivariateNormal(gaussian.mean.flatten(), noisy)
    assert torch.allclose(gaussian.log_prob(x, sigma), normal.log_prob(x.flatten(1)), rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("k", [6, 4])
def test_closed_form_trajectory_is_what_a_solver_converges_to(k: int) -> None:
    gaussian, start = random_gaussian(k=k), 20 * torch.randn(5, 2, 3, dtype=torch.float64)
    errors = []
    for steps in (300, 600):
        levels = schedules.karras(steps, 0.01, 20.0)
        exact, solved = gaussian.trajectory(start, levels), sample(gaussian, start, levels, "heun")
        for found, expected in ((solved.states, exact.states), (solved.denoised, exact.denoised)):
            errors.append((found - expected).abs().max().item())
    assert max(errors[2:]) < 1e-3
    assert [coarse / fine for coarse, fine in zip(errors[:2], errors[2:], strict=True)] == pytest.approx(
        [4, 4], rel=0.1
    )
    for step in (0, 300, 599):
        sigma = levels[step].item()
        assert torch.allclose(gaussian(exact.states[step], sigma), exact.denoised[step], atol=1e-12)


@pytest.mark.parametrize("n", [1, 5, 6, 300])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_fit_is_the_mean_and_covariance(n: int, dtype: torch.dtype) -> None:
    data = torch.randint(0, 256, (n, 2, 3), dtype=torch.uint8)
    data = data if dtype == torch.uint8 else torch.randn(n, 2, 3)
    gaussian = GaussianDenoiser.fit(data, dtype=torch.float64)
    points = reference.model_space(data, torch.float64).flatten(1)
    assert torch.allclose(gaussian.mean.flatten(), points.mean(0), atol=1e-12)
    assert torch.allclose(covariance(gaussian), torch.cov(points.T, correction=0), atol=1e-10)
    columns = gaussian.basis.shape[1]
    assert torch.allclose(gaussian.basis.T @ gaussian.basis, torch.eye(columns).double(), atol=1e-10)


def test_draws_have_the_mean_and_covariance_of_the_noised_data() -> None:
    gaussian = random_gaussian(k=4)
    drawn = gaussian.sample(200_000, 0.7, generator=torch.Generator().manual_seed(0)).flatten(1)
    assert torch.allclose(drawn.mean(0), gaussian.mean.flatten(), atol=0.02)
    assert torch.allclose(torch.cov(drawn.T), covariance(gaussian) + 0.49 * torch.eye(6), atol=0.05)


def test_one_level_for_each_query_and_float32() -> None:
    gaussian = random_gaussian()
    x, sigma = torch.randn(3, 2, 3), torch.tensor([0.1, 1.0, 10.0])
    found = gaussian(x, sigma)
    assert found.dtype == torch.float32
    for b in range(3):
        assert torch.allclose(found[b : b + 1], gaussian(x[b : b + 1], sigma[b].item()), atol=1e-6)
    assert torch.equal(found, gaussian(x, sigma[:, None, None]))


# ---- a mixture ----


def test_a_mixture_of_points_is_the_optimal_denoiser() -> None:
    data = torch.randn(7, 4)
    points = [GaussianDenoiser(point.double(), torch.zeros(4, 0), torch.zeros(0)) for point in data]
    weights = torch.randn(7)
    mixture = GaussianMixtureDenoiser(points, weights)
    x = torch.randn(5, 4, dtype=torch.float64)
    for sigma in (0.1, 1.0, 10.0):
        expected = reference.posterior(x, data, sigma, log_weights=weights)
        assert torch.allclose(mixture(x, sigma), expected.mean, atol=1e-10)
        assert torch.allclose(mixture.log_prob(x, sigma), expected.log_prob, atol=1e-9)


def test_a_mixture_obeys_tweedie() -> None:
    """r = x + sigma^2 grad log p_sigma(x)."""
    mixture = GaussianMixtureDenoiser([random_gaussian((6,), k) for k in (6, 4, 2)], torch.tensor([0.1, -0.5, 0.7]))
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    for sigma in (0.5, 2.0):
        (score,) = torch.autograd.grad(mixture.log_prob(x, sigma).sum(), x)
        assert torch.allclose(mixture(x, sigma), x + sigma**2 * score, atol=1e-8)


@pytest.mark.parametrize("far", [1.0, 1e2, 1e4])
def test_a_mixture_of_one_gaussian_has_its_score_however_far_x_is(far: float) -> None:
    generator = torch.Generator().manual_seed(0)
    one = GaussianDenoiser.fit(torch.randn(40, 6, generator=generator), dtype=torch.float64)
    x = (far * torch.randn(3, 6, generator=generator, dtype=torch.float64)).requires_grad_()
    found, expected = (
        torch.autograd.grad(denoiser.log_prob(x, 0.05).sum(), x)[0]
        for denoiser in (GaussianMixtureDenoiser([one, one, one], torch.zeros(3)), one)
    )
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)


def test_a_mixture_fitted_to_classes() -> None:
    data = torch.cat([torch.randn(30, 2, 2) + 3, torch.randn(10, 2, 2) - 3])
    labels = torch.tensor([5] * 30 + [2] * 10)
    mixture = GaussianMixtureDenoiser.fit(data, labels)
    assert mixture.log_weights.exp().tolist() == pytest.approx([0.25, 0.75])
    assert torch.allclose(mixture.components[1].mean, data[:30].mean(0), atol=1e-5)
    classes = mixture.log_weights_at(data, 0.5).argmax(1)
    assert classes.tolist() == [1] * 30 + [0] * 10
    single = GaussianMixtureDenoiser.fit(data, torch.zeros(40, dtype=torch.int64))
    assert torch.allclose(single(data, 0.5), GaussianDenoiser.fit(data)(data, 0.5), atol=1e-6)


def test_the_mixture_has_its_former_name_too() -> None:
    assert geodiff.analytic.MixtureDenoiser is GaussianMixtureDenoiser is not geodiff.MixtureDenoiser


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_they_go_wherever_a_denoiser_goes(solver: str) -> None:
    mixture = GaussianMixtureDenoiser([random_gaussian(k=6), random_gaussian(k=4)], torch.zeros(2))
    start = 80 * torch.randn(4, 2, 3)
    for denoiser in (mixture, mixture.components[0]):
        assert sample(denoiser, start, schedules.karras(8), solver).states.isfinite().all()


EYE = torch.eye(3)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("basis", lambda: GaussianDenoiser(torch.zeros(3), torch.eye(4), torch.ones(4))),
        ("variances", lambda: GaussianDenoiser(torch.zeros(3), EYE, torch.ones(2))),
        ("variances", lambda: GaussianDenoiser(torch.zeros(3), EYE, torch.tensor([1.0, -1.0, 1.0]))),
        ("x", lambda: GaussianDenoiser(torch.zeros(3), EYE, torch.ones(3))(torch.zeros(2, 4), 1.0)),
        ("sigma", lambda: GaussianDenoiser(torch.zeros(3), EYE, torch.ones(3))(torch.zeros(2, 3), 0.0)),
        ("components", lambda: GaussianMixtureDenoiser([], torch.zeros(0))),
        (
            "log_weights",
            lambda: GaussianMixtureDenoiser([GaussianDenoiser(torch.zeros(3), EYE, torch.ones(3))], torch.zeros(2)),
        ),
        ("x", lambda: two_point(torch.zeros(2, 2), 1.0)),
        ("sigma", lambda: two_point_flow(torch.zeros(2), 1.0, torch.tensor([0.0]))),
    ],
)
def test_bad_arguments_are_named(name: str, call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected .* found .*; allowed "):
        call()
