"""The formulas of the methods: DPS's gradient, single steps by hand, and Gaussian priors with a closed form."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff.analytic import GaussianDenoiser
from geodiff.inverse import (
    Blur,
    Inpainting,
    Operator,
    Options,
    Problem,
    SuperResolution,
    diffpir,
    dps,
    dps_noised,
    gaussian_kernel,
    pigdm,
)
from geodiff.schedules import karras
from tests.random_numbers import normal

SHAPE = (1, 8, 8)
DATA = torch.randint(0, 256, (30, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
OPTIMAL = geodiff.OptimalDenoiser(DATA, backend="reference")
OPERATORS: dict[str, Operator] = {
    "inpainting": Inpainting.random(SHAPE, 0.5, generator=torch.Generator().manual_seed(1)),
    "blur": Blur(gaussian_kernel(5, 2.0), SHAPE),
    "super-resolution": SuperResolution(4, gaussian_kernel(5, 2.0), SHAPE),
}


def begin(seed: int, clip: tuple[float, float] | None = None) -> Options:
    return Options(generator=torch.Generator().manual_seed(seed), clip=clip)


def measured(operator: Operator) -> Problem:
    truth = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 2 - 1
    return Problem.simulated(operator, truth, 0.05, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("sigma", [5.0, 1.0, 0.7])
@pytest.mark.parametrize("name", OPERATORS)
def test_the_gradient_of_dps_is_that_of_central_differences(name: str, sigma: float) -> None:
    """Two lengths of the same step are apart by the gradient; d/dx |y - A r(x)| by 64 central differences."""
    problem, following = measured(OPERATORS[name]), sigma / 2
    long, short = (dps(OPTIMAL, problem, [sigma, following], scale=s, options=begin(4)).images for s in (2.0, 1.0))
    length = ((1 + sigma**2) * (1 + following**2)) ** 0.5
    found = (short - long).flatten(1) / length
    x = sigma * normal(2, *SHAPE, seed=4)
    step = 1e-4
    expected = torch.empty_like(found)
    for pixel in range(64):
        shift = torch.zeros(64, dtype=torch.float64)
        shift[pixel] = step
        ahead, behind = (problem.misfit(OPTIMAL(x + s * shift.reshape(SHAPE), sigma)) for s in (1, -1))
        expected[:, pixel] = (ahead - behind) / (2 * step)
    assert expected.norm() > 1e-3
    assert (found - expected).abs().max() <= 1e-6 * max(1.0, float(expected.abs().max()))


def test_a_step_of_diffpir_is_the_formula() -> None:
    problem, sigma, following, lam, zeta = measured(OPERATORS["blur"]), 2.0, 1.5, 3.0, 0.3
    found = diffpir(OPTIMAL, problem, [sigma, following], lam=lam, zeta=zeta, options=begin(5)).images
    generator = torch.Generator().manual_seed(5)
    x = sigma * torch.randn(2, *SHAPE, generator=generator, dtype=torch.float64)
    n = torch.randn(2, *SHAPE, generator=generator, dtype=torch.float64)
    estimate = problem.proximal(OPTIMAL(x, sigma), lam * 0.05**2 / sigma**2)
    noise = (1 - zeta) ** 0.5 * (x - estimate) / sigma + zeta**0.5 * n
    torch.testing.assert_close(found, estimate + following * noise, rtol=1e-12, atol=1e-12)


def test_diffpir_that_trusts_the_prior_alone_walks_its_euler_trajectory() -> None:
    sigmas = karras(10, 0.02, 10.0)
    problem = measured(OPERATORS["inpainting"])
    found = diffpir(OPTIMAL, problem, sigmas, lam=1e30, zeta=0.0, options=begin(6)).images
    expected = geodiff.sample(OPTIMAL, 10 * normal(2, *SHAPE, seed=6), sigmas, "euler").states[-1]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_answers_are_cut_off_where_asked() -> None:
    problem = measured(OPERATORS["inpainting"])
    found = diffpir(lambda x, sigma: 9 + 0 * x, problem, [1.0, 0.0], lam=1e30, options=begin(0, (-1.0, 1.0)))
    torch.testing.assert_close(found.images, torch.ones(2, *SHAPE, dtype=torch.float64))


def test_the_share_of_fresh_noise_may_be_none_and_all() -> None:
    problem = measured(OPERATORS["blur"])
    for zeta in (0, 1):
        assert diffpir(OPTIMAL, problem, [2.0, 1.5], zeta=zeta, options=begin(5)).images.isfinite().all()
    for zeta in (-1e-300, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"^zeta: expected a number in range, found .*; allowed 0 <= zeta <= 1$"):
            diffpir(OPTIMAL, problem, [2.0, 1.5], zeta=zeta, options=begin(5))


def test_a_denoiser_that_autograd_cannot_follow_is_refused_where_it_must() -> None:
    def detached(x: Tensor, sigma: Tensor) -> Tensor:
        return OPTIMAL(x.detach(), sigma)

    problem = measured(OPERATORS["blur"])
    for method in (dps, pigdm):
        with pytest.raises(ValueError, match="autograd follows"):
            method(detached, problem, [1.0, 0.0])
    diffpir(detached, problem, [1.0, 0.0])


@pytest.mark.parametrize("clip", [1.0, (1, -1), (0, 0), (-1, 0, 1), "ab", (math.nan, 1)])
def test_where_answers_are_cut_off_is_checked(clip: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^clip: expected .*; allowed "):
        Options(clip=clip)
    assert Options(clip=None).clip is None


@pytest.mark.parametrize("sigma", [1e-200, 1e200])
def test_noise_that_float64_does_not_hold_the_square_of(sigma: float) -> None:
    with pytest.raises(ValueError, match=r"^sigma: expected a number in range, found 1e[+-]200; allowed 1e-12 <="):
        Problem(OPERATORS["blur"], normal(1, *SHAPE, seed=0), sigma)


@pytest.mark.parametrize("lam", [1e308, 1e-320])
def test_a_weight_that_float64_does_not_hold(lam: float) -> None:
    problem = Problem(OPERATORS["blur"], normal(1, *SHAPE, seed=0), 100.0 if lam > 1 else 1e-3)
    with pytest.raises(ValueError, match=r"^lam: expected lam sigma_n\^2 / sigma\^2 that float64 holds"):
        diffpir(OPTIMAL, problem, lam=lam)


# ---- a Gaussian prior: the posterior is known ----


def gaussian() -> GaussianDenoiser:
    """N(mu, Sigma) of smooth pictures 8 x 8."""
    places = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0)).double()
    covariance = 0.3 * torch.exp(-torch.cdist(places, places).square() / 8)
    variances, basis = torch.linalg.eigh(covariance)
    mean = torch.linspace(-0.5, 0.5, 64, dtype=torch.float64).reshape(SHAPE)
    return GaussianDenoiser(mean, basis, variances.clamp_min(0))


def closed_form(prior: GaussianDenoiser, problem: Problem) -> tuple[Tensor, Tensor]:
    """mu + S A^T (A S A^T + sigma_n^2)^-1 (y - A mu), and the trace of the posterior covariance over d."""
    matrix = problem.operator(torch.eye(64, dtype=torch.float64).reshape(64, *SHAPE)).flatten(1).T  # [m, d]
    covariance = prior.basis @ torch.diag(prior.variances) @ prior.basis.T
    seen = matrix @ covariance @ matrix.T + problem.sigma**2 * torch.eye(len(matrix), dtype=torch.float64)
    gain = torch.linalg.solve(seen, matrix @ covariance).T  # [d, m]
    centred = problem.y.flatten(1) - matrix @ prior.mean.flatten()
    mean = prior.mean.flatten() + centred @ gain.T
    return mean, (covariance - gain @ matrix @ covariance).trace() / 64


#: error of the mean in standard deviations of the posterior, root mean square over pixels: what was measured
#: (docs/inverse.md), a tenth more, and what 400 draws leave uncertain
BOUNDS: dict[str, tuple[Callable[..., object], dict[str, float]]] = {
    "diffpir": (diffpir, {"inpainting": 0.16, "blur": 0.09, "super-resolution": 0.07}),
    "dps": (dps, {"inpainting": 2.30, "blur": 0.79, "super-resolution": 0.42}),
    "dps-yt": (dps_noised, {"inpainting": 0.78, "blur": 1.74, "super-resolution": 0.28}),
    "pigdm": (pigdm, {"inpainting": 0.70, "blur": 0.24, "super-resolution": 0.16}),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("method", BOUNDS)
def test_means_beside_the_closed_form_of_a_gaussian_prior(method: str, name: str) -> None:
    """The mean of 400 answers to one measurement; the noise of that mean is 0.05 standard deviations."""
    prior, (run, bounds) = gaussian(), BOUNDS[method]
    truth = prior.sample(1, 0.0, generator=torch.Generator().manual_seed(7))
    one = Problem.simulated(OPERATORS[name], truth, 0.2, generator=torch.Generator().manual_seed(8))
    problem = Problem(one.operator, one.y.expand(400, *one.y.shape[1:]).contiguous(), 0.2)
    mean, variance = closed_form(prior, one)
    found = run(prior, problem, karras(150, 0.02, 20.0), options=begin(9)).images  # type: ignore[attr-defined]
    apart = float((found.flatten(1).mean(0) - mean[0]).square().mean().sqrt() / variance.sqrt())
    spread = float(found.flatten(1).var(0).mean() / variance)
    print(f"{method}, {name}: mean {apart:.2f} deviations off, variance {spread:.2f} of the posterior's")
    assert apart <= bounds[name]
