"""Contract 1 where principal coordinates carry a part of the query: data large enough that vary along a few lines."""

import numpy as np
import pytest
import torch
from torch import Tensor

from geodiff import OptimalDenoiser
from geodiff.backends import cpu
from tests.denoiser.large_data import squared_distances, wavy, weighted_means

N, SHAPE = 24_000, (3, 22, 22)  # 35 MB: csrc/cpu/products/shaping.cpp, worth_shaping
D = 3 * 22 * 22
TOLS = (1e-5, 1e-3)


@pytest.fixture(scope="module")
def data() -> np.ndarray:
    return wavy(N, D, waves=12, swing=35, noise=12, seed=0).reshape(N, *SHAPE)


def truth(data: np.ndarray, x: Tensor, sigma: float, log_prior: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and log sum in float64 difference form."""
    rows = data.reshape(N, D)
    logits = -squared_distances(rows, x.flatten(1)) / (2 * sigma**2)
    if log_prior is not None:
        logits = logits + log_prior
    mean = weighted_means(rows, torch.softmax(logits, 1))
    return mean, torch.logsumexp(logits, 1)


def worst(found: Tensor, exact: Tensor, largest: float) -> float:
    errors = (found.flatten(1).double() - exact).norm(dim=1)
    return (errors / exact.norm(dim=1).clamp(min=0.01 * largest)).max().item()


def noisy(data: np.ndarray, sigma: float, count: int) -> Tensor:
    """Noised rows, and for good measure a constant picture and one far away."""
    x = torch.from_numpy(data[50 : 50 + count]).float() / 127.5 - 1
    x = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(int(10 * sigma)))
    x[1], x[2] = 0.7 * sigma, 3 * x[2]
    return x


SIGMAS = (80.0, 30.0, 12.0)


@pytest.fixture(scope="module")
def exact_means(data: np.ndarray) -> dict[float, Tensor]:
    """Of the first six queries at each sigma: the same for every instruction set."""
    return {sigma: truth(data, noisy(data, sigma, 20)[:6], sigma)[0] for sigma in SIGMAS}


@pytest.fixture(scope="module")
def largest(data: np.ndarray) -> float:
    return max(float(np.linalg.norm(part.reshape(-1, D) / 127.5 - 1, axis=1).max()) for part in np.split(data, 8))


@pytest.mark.parametrize("isa", cpu.isas())
def test_contract(data: np.ndarray, isa: str, exact_means: dict[float, Tensor], largest: float) -> None:
    for tol in TOLS:
        with cpu.use_isa(isa):
            denoiser = OptimalDenoiser(data, tol=tol, backend="cpu")
            for sigma in SIGMAS:
                x = noisy(data, sigma, 20)
                found = denoiser.posterior(x, sigma)
                assert torch.equal(found.mean, denoiser(x, sigma))
                assert worst(found.mean[:6], exact_means[sigma], largest) <= tol, (sigma, tol)


def test_log_prob_weights_and_a_row_left_out(data: np.ndarray) -> None:
    sigma, x = 30.0, noisy(data, 30.0, 20)
    prior = torch.randn(N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    prior[: N // 3] = -torch.inf
    left_out = torch.full((20,), -1)
    left_out[:3] = torch.tensor([N // 2, N - 1, 5])
    for tol in TOLS:
        denoiser = OptimalDenoiser(data, log_weights=prior, tol=tol, backend="cpu")
        found = denoiser.posterior(x, sigma, exclude=left_out)
        seen = torch.log_softmax(prior, 0).repeat(3, 1)
        seen[range(3), left_out[:3]] = -torch.inf
        exact, log_sum = truth(data, x[:3], sigma, seen - torch.logsumexp(seen, 1, keepdim=True))
        assert worst(found.mean[:3], exact, 1.0) <= tol
        log_prob = log_sum - D * (np.log(sigma) + 0.5 * np.log(2 * np.pi))
        assert ((found.log_prob[:3].double() - log_prob).abs() <= 1e-3 + 1e-6 * log_prob.abs()).all()


def test_answers_are_the_same_whoever_came_before(data: np.ndarray) -> None:
    x = noisy(data, 30.0, 20)
    one, other = (OptimalDenoiser(data, backend="cpu") for _ in range(2))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first = one(x, 30.0)
        torch.set_num_threads(3)
        other(x[:18], 60.0)  # makes the coordinates on three threads
        torch.set_num_threads(1)
        assert torch.equal(first, other(x, 30.0))
    finally:
        torch.set_num_threads(threads)
