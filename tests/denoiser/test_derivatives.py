"""Derivatives of the denoiser: against autograd through the float64 reference, against finite differences, and used."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import reference
from geodiff.backends import Query, cpu, open_engine
from geodiff.backends.cpu import PATHS, CpuEngine
from geodiff.backends.query import Direction
from geodiff.reference import moments

pytestmark = [
    pytest.mark.skipif(not geodiff.backends.is_available("cpu"), reason=geodiff.backends.available()["cpu"]),
    # torch itself scripts its decompositions the first time that forward mode is used
    pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning"),
]

# More than 2^14 numbers, so that the packed passes are used; neither N nor d divides a tile.
N, D = 701, 67


def stored(dtype: torch.dtype, n: int = N, d: int = D) -> Tensor:
    """Points around eight centres, so that posteriors are neither one point nor all alike."""
    g = torch.Generator().manual_seed(0)
    centres = 0.5 * torch.randn(8, d, generator=g)
    points = (centres[torch.arange(n) % 8] + 0.1 * torch.randn(n, d, generator=g)).clamp(-1, 1)
    return ((points + 1) * 127.5).round().to(torch.uint8) if dtype == torch.uint8 else points.to(dtype)


def noisy(data: Tensor, sigma: float, batch: int) -> Tensor:
    g = torch.Generator().manual_seed(1)
    points = reference.model_space(data[torch.randint(len(data), (batch,), generator=g)], torch.float64)
    return points + sigma * torch.randn(points.shape, generator=g, dtype=torch.float64)


class Expected(NamedTuple):
    """The float64 oracle for three queries of one data set at one level, per slope."""

    data: Tensor
    x: Tensor
    v: Tensor
    mean: Tensor
    trace: Tensor
    covariances: list[tuple[Tensor, Tensor, Tensor]]  # slope, Cov(c, x_i), Cov(c, |x - x_i|^2)
    along: Tensor  # standard deviation of <x_i, v>


@functools.cache
def expected(dtype: torch.dtype, sigma: float) -> Expected:
    data = stored(dtype)
    x = noisy(data, sigma, 3)
    v = torch.randn(3, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    slopes = (torch.zeros(3, dtype=torch.float64), torch.full((3,), 0.5 / sigma, dtype=torch.float64))
    found = [(slope, *moments.covariance(x, data, sigma, moments.Along(v, slope))) for slope in slopes]
    along = (found[0][1] * v).sum(1).clamp(min=0).sqrt()
    mean = reference.posterior(x, data, sigma).mean
    return Expected(data, x, v, mean, moments.trace(x, data, sigma), found, along)


@pytest.mark.parametrize("isa", cpu.isas())
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("sigma", [1e-3, 0.05, 0.3, 1.0, 4.0, 80.0, 1e3])
def test_covariances_keep_their_bound(isa: str, dtype: torch.dtype, sigma: float) -> None:
    """|Cov_w(c, x_i) - exact| <= tol max(sqrt(Var c tr Cov), 0.01 sigma^2 |v|), with and without a slope."""
    data, x, v, mean, trace, covariances, along = expected(dtype, sigma)
    tol, rows = 1e-5, range(N)
    levels = torch.full((3,), sigma, dtype=torch.float64)
    engine = open_engine("cpu", data)
    with cpu.use_isa(isa):
        query = Query(x, levels, rows, tol=tol)
        found_trace = engine.trace(query, engine.posterior(query))
        torch.testing.assert_close(found_trace, trace, rtol=1e-4, atol=1e-9 * sigma**2)
        for slope, with_rows, with_distance in covariances:
            found = engine.covariance(query, Direction(mean, v, slope))
            # sd c is about sd <x_i, v> + slope sd |x - x_i|^2; the latter is of the order of `spread`.
            spread = 2 * ((trace + (x - mean).square().sum(1)) * trace).clamp(min=0).sqrt()
            deviation = along + slope * spread
            scale = torch.maximum(deviation * trace.clamp(min=0).sqrt(), 0.01 * sigma**2 * v.norm(dim=1))
            error = (found[0] - with_rows).norm(dim=1)
            assert (error <= tol * scale).all(), (error / scale).max()
            assert ((found[1] - with_distance).abs() <= 1e-4 * deviation * spread + 1e-9 * sigma**3).all()


@pytest.mark.parametrize("isa", cpu.isas())
@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0, 80.0])
@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_covariances_of_queries_that_round_coarsely(isa: str, sigma: float, slope: float) -> None:
    """One coordinate of 1e4 leaves few digits for the others; with v = 0 only the slope carries the answer."""
    data = stored(torch.uint8)
    x, points = noisy(data, sigma, 4), reference.model_space(data, torch.float64)
    x[:, 0] = torch.tensor([1e2, 1e3, 3e3, 1e4])
    v = (slope == 0) * torch.randn(4, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    levels, slopes = torch.full((4,), sigma, dtype=torch.float64), torch.full((4,), slope, dtype=torch.float64)
    mean = reference.posterior(x, data, sigma).mean
    wanted, _ = moments.covariance(x, data, sigma, moments.Along(v, slopes))
    squared = torch.cdist(x, points, compute_mode="donot_use_mm_for_euclid_dist").square()
    weights = torch.softmax(-squared / (2 * sigma**2), 1)
    c = (points - mean[:, None]).mul(v[:, None]).sum(2) + slope * squared
    variance = (weights * (c - (weights * c).sum(1, keepdim=True)).square()).sum(1)
    least = 0.01 * sigma**2 * (v.norm(dim=1) + slope * points.norm(dim=1).max())
    promise = torch.maximum((variance * moments.trace(x, data, sigma)).sqrt(), least)
    with cpu.use_isa(isa):
        found = open_engine("cpu", data).covariance(Query(x, levels, range(N)), Direction(mean, v, slopes))
    error = (found[0] - wanted).norm(dim=1)
    assert (error <= 1e-5 * promise).all(), (error / promise).max()


def test_the_grid_above_takes_every_path() -> None:
    paths = set()
    for dtype in (torch.uint8, torch.float32):
        engine = open_engine("cpu", stored(dtype))
        assert isinstance(engine, CpuEngine)
        for sigma in (0.05, 4.0, 80.0):
            levels = torch.full((5,), sigma, dtype=torch.float64)
            for tol in (1e-5, 1e-12):
                x = noisy(engine.rows, sigma, 5)
                engine.posterior(Query(x, levels, range(N), tol=tol))
                paths |= {PATHS[path] for path in engine.last_paths.tolist()}
    assert {"screened", "dense", "exact"} <= paths


def functions() -> list[Callable[[Tensor, Tensor], tuple[Tensor, ...]]]:
    large = geodiff.OptimalDenoiser(stored(torch.uint8), labels=torch.arange(N) % 3)
    images = geodiff.OptimalDenoiser(stored(torch.float32, 40, 24).reshape(40, 2, 3, 4), augment="hflip")
    weighted = geodiff.OptimalDenoiser(stored(torch.float16, 30, 5), log_weights=torch.randn(30))
    seen = torch.rand(3, N, generator=torch.Generator().manual_seed(4)) < 0.5
    return [
        lambda x, s: (large(x, s), large.log_prob(x, s)),
        lambda x, s: (large(x, s, torch.tensor([2, 0, 2])), large.log_prob(x, s, torch.tensor([2, 0, 2]))),
        lambda x, s: (large.score(x, s, mask=seen),),
        lambda x, s: (images(x[:, :24].reshape(-1, 2, 3, 4), s), images.log_prob(x[:, :24].reshape(-1, 2, 3, 4), s)),
        lambda x, s: (weighted(x[:, :5], s), weighted.log_prob(x[:, :5], s)),
    ]


@pytest.mark.parametrize("which", range(5))
@pytest.mark.parametrize("sigma", [0.05, 0.4, 3.0])
def test_gradcheck(which: int, sigma: float) -> None:
    """Reverse and forward mode, in x and in sigma, on every kind of conditioning."""
    x = noisy(stored(torch.float32), sigma, 3).requires_grad_()
    s = (sigma * torch.tensor([1.0, 1.3, 0.8], dtype=torch.float64)).requires_grad_()
    function = functions()[which]
    assert torch.autograd.gradcheck(function, (x, s), check_forward_ad=True, fast_mode=True, eps=1e-6 * sigma)


@pytest.mark.parametrize("which", range(5))
def test_second_derivatives(which: int) -> None:
    x = noisy(stored(torch.float32), 0.4, 3).requires_grad_()
    s = torch.tensor([0.4, 0.5, 0.3], dtype=torch.float64, requires_grad=True)
    function = functions()[which]
    assert torch.autograd.gradgradcheck(function, (x, s), check_fwd_over_rev=which == 4, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("sigma", [0.3, 4.0, 80.0])
def test_gradients_in_float32_agree_with_the_reference(dtype: torch.dtype, sigma: float) -> None:
    data = stored(dtype)
    denoiser = geodiff.OptimalDenoiser(data)
    x = noisy(data, sigma, 6).float().requires_grad_()
    v = torch.randn(6, D, generator=torch.Generator().manual_seed(2))
    found, by_sigma = torch.autograd.grad(denoiser(x, s := torch.tensor(sigma, requires_grad=True)), (x, s), v)
    x64, s64 = x.detach().double().requires_grad_(), torch.tensor(sigma, dtype=torch.float64, requires_grad=True)
    exact, exact_by_sigma = torch.autograd.grad(reference.posterior(x64, data, s64).mean, (x64, s64), v.double())
    assert found.dtype == torch.float32
    assert (found - exact).norm() <= 1e-4 * exact.norm() + 1e-6 * v.norm()
    torch.testing.assert_close(by_sigma.double(), exact_by_sigma, rtol=1e-3, atol=1e-6 * float(v.norm()))


def test_half_precision_and_autocast_and_inference_mode() -> None:
    denoiser = geodiff.OptimalDenoiser(stored(torch.uint8))
    x = noisy(denoiser.data, 1.0, 3).float()
    plain = denoiser(x, 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(denoiser(x, 1.0), plain)
    with torch.inference_mode():
        assert torch.equal(denoiser(x, 1.0), plain)
    half = x.bfloat16().requires_grad_()
    denoiser(half, 1.0).sum().backward()
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16


def test_functional_transforms() -> None:
    data = stored(torch.uint8, 50, 6)
    denoiser = geodiff.OptimalDenoiser(data)
    x, v = noisy(data, 0.5, 4), torch.randn(4, 6, dtype=torch.float64)

    def one(point: Tensor) -> Tensor:
        return denoiser(point[None], 0.5)[0]

    def exact(point: Tensor) -> Tensor:
        return reference.posterior(point[None], data, 0.5).mean[0]

    expected = torch.stack([torch.autograd.functional.jacobian(exact, point) for point in x])  # [4, 6, 6]
    jacobians = torch.func.vmap(torch.func.jacrev(one))(x)
    torch.testing.assert_close(jacobians, expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(torch.func.vmap(torch.func.jacfwd(one))(x), expected, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(jacobians, jacobians.mT, rtol=1e-9, atol=1e-12)
    denoised, forward = torch.func.jvp(lambda y: denoiser(y, 0.5), (x,), (v,))
    torch.testing.assert_close(denoised, denoiser(x, 0.5), rtol=1e-5, atol=1e-7)
    _, pull = torch.func.vjp(lambda y: denoiser(y, 0.5), x)
    torch.testing.assert_close(forward, (expected @ v[..., None])[..., 0], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(pull(v)[0], (expected @ v[..., None])[..., 0], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(
        denoiser.divergence(x, 0.5), expected.diagonal(dim1=1, dim2=2).sum(1), rtol=1e-6, atol=1e-9
    )
    levels = torch.tensor([0.3, 0.5, 0.9], dtype=torch.float64)
    over_levels = torch.func.vmap(lambda s: denoiser(x, s))(levels)
    torch.testing.assert_close(over_levels[2], denoiser(x, 0.9), rtol=1e-9, atol=1e-12)


def test_gradient_of_log_prob_is_the_score() -> None:
    data = stored(torch.uint8)
    denoiser = geodiff.OptimalDenoiser(data)
    for sigma in (0.01, 0.5, 10.0):
        x = noisy(data, sigma, 4).float().requires_grad_()
        (found,) = torch.autograd.grad(denoiser.log_prob(x, sigma).sum(), x)
        torch.testing.assert_close(found, denoiser.score(x.detach(), sigma), rtol=1e-6, atol=1e-6)


def test_what_is_not_differentiable_says_so() -> None:
    denoiser = geodiff.OptimalDenoiser(stored(torch.uint8))
    x = noisy(denoiser.data, 1.0, 2).requires_grad_()
    posterior = denoiser.posterior(x, 1.0, topk=2)
    assert posterior.mean.requires_grad
    assert posterior.log_prob.requires_grad
    assert posterior.trace is not None
    for value in (posterior.entropy, posterior.ess, posterior.trace, posterior.weights, denoiser.divergence(x, 1.0)):
        assert not value.requires_grad


def test_likelihood_along_the_flow_matches_the_closed_form() -> None:
    """log p(x_0) = log p(x_T) + int (d - div r) / sigma d sigma along the flow: within 1e-2 nats per dimension."""
    digits = geodiff.data.load("digits").data
    denoiser = geodiff.OptimalDenoiser(digits)
    d = math.prod(denoiser.shape)
    low, high, steps = 0.1, 80.0, 150
    x = noisy(digits, low, 8)
    first = denoiser.log_prob(x, low)
    step = math.log(high / low) / steps

    def rate(x: Tensor, log_sigma: float) -> tuple[Tensor, Tensor]:
        posterior = denoiser.posterior(x, math.exp(log_sigma))
        assert posterior.trace is not None
        return x - posterior.mean, d - posterior.trace / math.exp(2 * log_sigma)

    gained = torch.zeros(8, dtype=torch.float64)
    for k in range(steps):  # Runge-Kutta of order 4 in log sigma
        t = math.log(low) + k * step
        a, p = rate(x, t)
        b, q = rate(x + step / 2 * a, t + step / 2)
        c, r = rate(x + step / 2 * b, t + step / 2)
        e, s = rate(x + step * c, t + step)
        x = x + step / 6 * (a + 2 * b + 2 * c + e)
        gained += step / 6 * (p + 2 * q + 2 * r + s)
    error = (denoiser.log_prob(x, high) + gained - first).abs() / d
    assert error.max() <= 1e-2, error
