"""Derivatives of derivatives through torch.func and autograd, against the plain formula differentiated the same way."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import geodiff

# torch itself scripts its decompositions the first time that forward mode is used
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")

F = torch.func
N, D = 40, 3
Scalar = Callable[[Tensor], Tensor]

NESTED: dict[str, Callable[[Scalar], Scalar]] = {
    "hessian": F.hessian,
    "jacrev(jacrev)": lambda f: F.jacrev(F.jacrev(f)),
    "jacfwd(jacfwd)": lambda f: F.jacfwd(F.jacfwd(f)),
    "jacfwd(jacrev)": lambda f: F.jacfwd(F.jacrev(f)),
    "jacrev(jacfwd)": lambda f: F.jacrev(F.jacfwd(f)),
    "jacrev(grad)": lambda f: F.jacrev(F.grad(f)),
    "jacfwd(grad)": lambda f: F.jacfwd(F.grad(f)),
    "jvp(grad)": lambda f: lambda v: F.jvp(F.grad(f), (v,), (torch.ones_like(v),))[1],
    "vjp(grad)": lambda f: lambda v: F.vjp(F.grad(f), v)[1](torch.ones_like(v))[0],
    "grad(sum grad)": lambda f: F.grad(lambda v: F.grad(f)(v).sin().sum()),
    "third": lambda f: F.jacrev(F.hessian(f)),
    "grad of jvp": lambda f: F.grad(lambda v: F.jvp(f, (v,), (torch.ones_like(v),))[1].sum()),
}


@pytest.fixture(params=["plain", "weights", "labels", "mask", "hflip", "bytes"])
def pair(request: pytest.FixtureRequest) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """log p summed over two queries, as the denoiser has it and as the formula does; of x [2, D] and sigma."""
    kind = request.param
    data = torch.randint(0, 256, (N, D), dtype=torch.uint8) if kind == "bytes" else torch.randn(N, D)
    points = data.double() / 127.5 - 1 if kind == "bytes" else data.double()
    prior = torch.zeros(2, N, dtype=torch.float64)
    options, call = {}, {}
    if kind == "weights":
        options["log_weights"] = torch.randn(N)
        prior = prior + options["log_weights"]
    if kind == "labels":
        options["labels"], call["class_labels"] = torch.arange(N) % 3, torch.tensor([2, 0])
        prior = prior.masked_fill(options["labels"] != call["class_labels"][:, None], -torch.inf)
    if kind == "mask":
        call["mask"] = torch.rand(2, N) < 0.6
        prior = prior.masked_fill(~call["mask"], -torch.inf)
    shape: tuple[int, ...] = (D,)
    if kind == "hflip":
        options["augment"], shape = "hflip", (1, 1, D)
        points = torch.cat([points, points.flip(-1)])
        prior = torch.cat([prior, prior], 1)
    denoiser = geodiff.OptimalDenoiser(data.reshape(N, *shape), **options)
    prior = prior.log_softmax(1)

    def ours(x: Tensor, sigma: float | Tensor) -> Tensor:
        return denoiser.log_prob(x.reshape(2, *shape), sigma, **call).sum()

    def plain(x: Tensor, sigma: float | Tensor) -> Tensor:
        far = (x[:, None] - points).square().sum(2)
        sigma = torch.as_tensor(sigma, dtype=torch.float64)
        return (torch.logsumexp(prior - far / (2 * sigma**2), 1) - D * (sigma.log() + math.log(2 * math.pi) / 2)).sum()

    return ours, plain


@pytest.mark.parametrize("way", NESTED)
def test_nested_in_x(way: str, pair: tuple[Callable[..., Tensor], Callable[..., Tensor]]) -> None:
    ours, plain = pair
    x = torch.randn(2, D, dtype=torch.float64)
    found, expected = (NESTED[way](lambda v, f=f: f(v, 0.7))(x) for f in (ours, plain))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("way", NESTED)
def test_nested_in_sigma(way: str, pair: tuple[Callable[..., Tensor], Callable[..., Tensor]]) -> None:
    ours, plain = pair
    x, sigma = torch.randn(2, D, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)
    found, expected = (NESTED[way](lambda s, f=f: f(x, s))(sigma) for f in (ours, plain))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_both_at_once_and_under_vmap() -> None:
    data = torch.randn(N, D)
    denoiser = geodiff.OptimalDenoiser(data)

    def ours(x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser.log_prob(x[None], sigma)[0]

    def plain(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.logsumexp(-(x - data.double()).square().sum(1) / (2 * sigma**2), 0) - D * sigma.log()

    x, sigma = torch.randn(5, D, dtype=torch.float64), torch.rand(5, dtype=torch.float64) + 0.3
    for way in (F.hessian(ours, (0, 1)), F.jacfwd(F.grad(ours, (0, 1)), (0, 1))):
        expected = F.vmap(F.hessian(plain, (0, 1)))(x, sigma)
        torch.testing.assert_close(F.vmap(way)(x, sigma), expected, rtol=1e-9, atol=1e-9)


def test_the_mean_has_second_derivatives_too() -> None:
    data = torch.randn(N, D)
    denoiser, x = geodiff.OptimalDenoiser(data), torch.randn(1, D, dtype=torch.float64)

    def plain(v: Tensor) -> Tensor:
        return (-(v - data.double()).square().sum(1) / (2 * 0.49)).softmax(0)[None] @ data.double()

    found, expected = (F.jacrev(F.jacrev(f))(x) for f in (lambda v: denoiser(v, 0.7), plain))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    found, expected = (
        torch.autograd.functional.hessian(lambda v, f=f: f(v).sin().sum(), x)
        for f in (lambda v: denoiser(v, 0.7), plain)
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_float32_queries_nest() -> None:
    denoiser, x = geodiff.OptimalDenoiser(torch.randn(N, D)), torch.randn(1, D)
    exact = F.hessian(lambda v: denoiser.log_prob(v, 0.7).sum())(x.double())
    torch.testing.assert_close(
        F.hessian(lambda v: denoiser.log_prob(v, 0.7).sum())(x), exact.float(), rtol=1e-3, atol=1e-3
    )


def test_the_hessian_of_copies_is_that_of_one_point_however_far_x_is() -> None:
    """-I / sigma^2: weights whose sum is off by 1e-8 would add as much of |x - x_i|^2 / sigma^4."""
    denoiser = geodiff.OptimalDenoiser(torch.randn(1, D).expand(3, D).contiguous())
    x = 100 * torch.randn(1, D, dtype=torch.float64)
    found = F.hessian(lambda v: denoiser.log_prob(v, 0.05).sum())(x).reshape(D, D)
    torch.testing.assert_close(found, -torch.eye(D, dtype=torch.float64) / 0.05**2, rtol=1e-8, atol=1e-5)
