"""Contract 1 and 4 where principal coordinates tell most rows from the nearest ones before anything else is read."""

import numpy as np
import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import OptimalDenoiser
from geodiff.backends import cpu
from tests.denoiser.large_data import squared_distances, wavy, weighted_means

N, D = 16_500, 2_100  # large enough for coordinates, and for twice as many of them
SIGMAS = (0.02, 0.2, 0.7)


@pytest.fixture(scope="module")
def data() -> np.ndarray:
    """Waves and noise, with near-duplicates."""
    stored = wavy(N, D, waves=16, swing=30, noise=8, seed=3)
    stored[300:310] = stored[300]
    stored[np.arange(300, 310), np.arange(10)] ^= 1
    return stored


def queries(data: np.ndarray, sigma: float) -> Tensor:
    """Noised rows of each kind, a constant, and one far away."""
    rows = [100, 204, 303, 5_000, 16_499, *range(7_000, 7_015)]
    x = torch.from_numpy(data[rows]).float() / 127.5 - 1
    x = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(int(100 * sigma)))
    x[5], x[6] = 0.3, 4 * x[6]
    return x


@pytest.mark.parametrize("isa", cpu.isas())
def test_contract_with_rows_left_out_and_the_nearest(data: np.ndarray, isa: str) -> None:
    with cpu.use_isa(isa):
        denoiser = OptimalDenoiser(data, backend="cpu").prepare()
        for sigma in SIGMAS:
            x = queries(data, sigma)
            exclude = torch.full((20,), -1)
            exclude[:5] = torch.tensor([100, 204, 303, -1, 16_499])
            found = denoiser.posterior(x, sigma, topk=4, exclude=exclude)
            away = squared_distances(data, x[:7])
            for q in range(7):
                if exclude[q] >= 0:
                    away[q, exclude[q]] = torch.inf
            exact = weighted_means(data, torch.softmax(-away / (2 * sigma**2), 1))
            errors = (found.mean[:7] - exact).norm(dim=1)
            assert (errors <= 1e-5 * exact.norm(dim=1).clamp(min=0.1)).all(), (sigma, errors)
            nearest = away.sort(dim=1, stable=True).indices[:, :4]
            # Duplicates have one distance: which of them is named is settled by their number.
            assert torch.equal(found.indices[:7], nearest), (sigma, found.indices[:7], nearest)


@pytest.mark.parametrize("isa", cpu.isas())
def test_few_queries_get_the_same_bits_with_and_without(data: np.ndarray, isa: str) -> None:
    with cpu.use_isa(isa):
        fresh, ready = OptimalDenoiser(data, backend="cpu"), OptimalDenoiser(data, backend="cpu").prepare()
        for sigma in SIGMAS:
            farther = torch.tensor([1e3, 1e6, 1e12, 1e20, 1e30])[:, None].expand(5, D)
            for x in torch.cat([queries(data, sigma), farther]).split(1):
                assert torch.equal(fresh(x, sigma), ready(x, sigma)), sigma


@pytest.mark.parametrize("isa", cpu.isas())
def test_contract_and_bits_with_priors(data: np.ndarray, isa: str) -> None:
    """Weights of 0, and others over 40 nats: the likeliest image is often not the nearest."""
    generator = torch.Generator().manual_seed(12)
    log_weights = -40 * torch.rand(N, generator=generator, dtype=torch.float64)
    log_weights[::9] = -torch.inf
    with cpu.use_isa(isa):
        fresh = OptimalDenoiser(data, backend="cpu", log_weights=log_weights)
        ready = OptimalDenoiser(data, backend="cpu", log_weights=log_weights).prepare()
        for sigma in SIGMAS:
            x = queries(data, sigma)[:7]
            logits = log_weights - squared_distances(data, x) / (2 * sigma**2)
            exact = weighted_means(data, torch.softmax(logits, 1))
            found = ready.posterior(x, sigma, topk=3)
            errors = (found.mean - exact).norm(dim=1)
            assert (errors <= 1e-5 * exact.norm(dim=1).clamp(min=0.1)).all(), (sigma, errors)
            assert torch.equal(logits.gather(1, found.indices).sort(descending=True).values, logits.topk(3).values)
            for one in x.split(1):
                assert torch.equal(fresh(one, sigma), ready(one, sigma)), sigma
            # A level for each query: no one number of a row says how far it is from all of them.
            levels = torch.linspace(1, 1.5, 7) * sigma
            assert torch.equal(fresh(x, levels), ready(x, levels)), sigma


def test_the_same_bits_where_a_piece_of_the_rows_is_full_of_alike(data: np.ndarray) -> None:
    rows = data.copy()
    rows[300:15_000] = rows[100]  # more than any list holds, far from what is asked for
    fresh, ready = OptimalDenoiser(rows, backend="cpu"), OptimalDenoiser(rows, backend="cpu").prepare()
    x = torch.from_numpy(rows[[16_000, 50, 250]]).float() / 127.5 - 1
    x = x + 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    sigmas = torch.tensor([0.2, 0.1, 0.0], dtype=torch.float64)
    for denoiser in (fresh, ready):
        assert geodiff.sample(denoiser, x, sigmas, solver="euler").cost[0].paths == {"screened": 3}
    for one in x.split(1):
        assert torch.equal(fresh(one, 0.2), ready(one, 0.2))
    at_them = torch.from_numpy(rows[[400]]).float() / 127.5 - 1 + 0.2
    assert torch.equal(fresh(at_them, 0.2), ready(at_them, 0.2))


@pytest.mark.parametrize("isa", cpu.isas())
@pytest.mark.parametrize("columns", [200, D])
def test_near_rows_are_found_behind_many_alike_in_one_pass(data: np.ndarray, columns: int, isa: str) -> None:
    """Also where rows are too short for coordinates."""
    rows = data[:, :columns].copy()
    rows[2_000:15_000] = rows[100]
    x = torch.from_numpy(rows[[16_000, 50, 250]]).float() / 127.5 - 1
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    with cpu.use_isa(isa):
        denoiser = OptimalDenoiser(rows, backend="cpu")
        for sigma in (0.05, 0.1):
            trajectory = geodiff.sample(denoiser, x + sigma * noise, torch.tensor([sigma, 0.0]), solver="euler")
            cost = trajectory.cost[0]
            assert cost.paths == {"screened": 3}
            assert N <= cost.rows < 1.1 * N
            away = squared_distances(rows, x + sigma * noise)
            exact = weighted_means(rows, torch.softmax(-away / (2 * sigma**2), 1))
            errors = (trajectory.denoised[0] - exact).norm(dim=1)
            assert (errors <= 1e-5 * exact.norm(dim=1).clamp(min=0.1)).all(), (sigma, errors)


def test_most_rows_are_not_read(data: np.ndarray) -> None:
    if not cpu.isas()[-1].startswith("avx"):
        pytest.skip("no instruction set with integer products in lanes runs here")
    x = torch.from_numpy(data[7_000:7_003]).float() / 127.5 - 1
    x = x + 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    sigmas = torch.tensor([0.2, 0.1, 0.0], dtype=torch.float64)
    for log_weights in (None, torch.linspace(-1, 0, N)):
        rows = {}
        for name, denoiser in (
            ("fresh", OptimalDenoiser(data, backend="cpu", log_weights=log_weights)),
            ("ready", OptimalDenoiser(data, backend="cpu", log_weights=log_weights).prepare()),
        ):
            trajectory = geodiff.sample(denoiser, x, sigmas, solver="euler")
            assert trajectory.cost[0].paths == {"screened": 3}
            rows[name] = trajectory.cost[0].rows
        assert rows["fresh"] >= N
        assert rows["ready"] < N / 10
