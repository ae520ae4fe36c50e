"""The posterior as an object: covariances, trace, and draws of data indices."""

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import reference
from geodiff.reference import moments

BACKENDS = [name for name in ("reference", "cpu") if geodiff.backends.is_available(name)]


def points(n: int, *shape: int) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=g)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("augment", [None, "hflip"])
@pytest.mark.parametrize("sigma", [0.3, 3.0, 50.0])
def test_covariance_and_trace(backend: str, augment: str | None, sigma: float) -> None:
    data = points(300, 2, 6, 7)
    denoiser = geodiff.OptimalDenoiser(data, backend=backend, augment=augment)
    g = torch.Generator().manual_seed(1)
    x = reference.model_space(data[:3], torch.float32) + sigma * torch.randn(3, 2, 6, 7, generator=g)
    v = torch.randn(3, 2, 6, 7, generator=g)
    everything = data if augment is None else torch.cat([data, data.flip(-1)])
    posterior = denoiser.posterior(x, sigma)
    exact, _ = moments.covariance(
        x.double(), everything, sigma, moments.Along(v.double(), torch.zeros(3, dtype=torch.float64))
    )
    trace = moments.trace(x.double(), everything, sigma)
    found = posterior.covariance(v)
    assert found.dtype == v.dtype
    assert (
        (found - exact)
        .flatten(1)
        .norm(dim=1)
        .le(
            1e-5 * trace.clamp(min=0).sqrt() * (exact * v).flatten(1).sum(1).clamp(min=0).sqrt()
            + 1e-6 * exact.flatten(1).norm(dim=1)
            + 1e-7 * sigma**2 * v.flatten(1).norm(dim=1)
        )
        .all()
    )
    assert posterior.trace is not None
    torch.testing.assert_close(posterior.trace.double(), trace, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(denoiser.divergence(x, sigma).double(), trace / sigma**2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sigma", [0.05, 0.4, 3.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
def test_covariance_in_float64_is_that_of_dense_algebra(backend: str, dtype: torch.dtype, sigma: float) -> None:
    """For points that autograd follows, each at a level of its own: the d x d matrix, and the Jacobian."""
    data = points(40, 2, 3) if dtype == torch.uint8 else torch.randn(40, 2, 3).to(dtype)
    x, v = torch.randn(2, 3, 2, 3, dtype=torch.float64)
    levels = sigma * torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    found = geodiff.OptimalDenoiser(data, backend=backend).posterior(x.clone().requires_grad_(), levels).covariance(v)
    rows = reference.model_space(data, torch.float64).flatten(1)
    for b, level in enumerate(levels.tolist()):
        weights = (-(rows - x[b].flatten()).square().sum(1) / (2 * level**2)).softmax(0)
        centred = rows - weights @ rows
        expected = centred.T @ (weights * (centred @ v[b].flatten()))
        assert torch.allclose(found[b].flatten(), expected, rtol=1e-10, atol=1e-13)
    _, product = torch.autograd.functional.jvp(lambda y: reference.denoise(y, data, levels), x, v)
    assert torch.allclose(found / levels.square()[:, None, None], product, rtol=1e-9, atol=1e-13)


def test_moments_over_many_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    data, x, v = torch.randn(101, 7), torch.randn(4, 7).double(), torch.randn(4, 7).double()
    slope = torch.rand(4, dtype=torch.float64)
    whole = moments.covariance(x, data, 1.5, moments.Along(v, slope))
    monkeypatch.setattr("geodiff.reference.formula._TILE_CPU", 7 * 10)
    for tiled, one in zip(moments.covariance(x, data, 1.5, moments.Along(v, slope)), whole, strict=True):
        assert torch.allclose(tiled, one, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("n", "sigma", "augment"), [(20, 1.5, None), (900, 1.2, None), (900, 30.0, None), (900, 4.0, "hflip")]
)
def test_draws_follow_the_weights(backend: str, n: int, sigma: float, augment: str | None) -> None:
    """Pearson's statistic over cells of equal probability: below its 1 - 1e-6 quantile."""
    data, draws = points(n, 1, 4, 8), 20000
    denoiser = geodiff.OptimalDenoiser(data, backend=backend, augment=augment)
    g = torch.Generator().manual_seed(2)
    x = reference.model_space(data[:2], torch.float32) + sigma * torch.randn(2, 1, 4, 8, generator=g)
    everything = data if augment is None else torch.cat([data, data.flip(-1)])
    found = denoiser.posterior(x, sigma).sample(draws, generator=torch.Generator().manual_seed(3))
    again = denoiser.posterior(x, sigma).sample(draws, generator=torch.Generator().manual_seed(3))
    assert torch.equal(found, again)
    assert found.shape == (2, draws)
    exact = reference.posterior(x.double(), everything, sigma, topk=len(everything))
    for b in range(2):
        weights = torch.zeros(len(everything), dtype=torch.float64).scatter(0, exact.indices[b], exact.weights[b])
        cells = (weights.cumsum(0) * 10).floor().clamp(max=9).long()  # neighbouring points share a cell
        expected = torch.zeros(10, dtype=torch.float64).index_add(0, cells, weights) * draws
        counts = torch.zeros(10, dtype=torch.float64).index_add(0, cells[found[b]], torch.ones(draws).double())
        kept = expected > 5
        statistic = ((counts - expected)[kept].square() / expected[kept]).sum()
        assert statistic < 45, (counts, expected)
        assert counts[~kept].sum() < 30
        assert (weights[found[b]] > 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_draws_invert_the_distribution_function(backend: str) -> None:
    """Number by number, on both sides of every step: the reference and the kernels name the same point."""
    data = points(900, 32)
    denoiser = geodiff.OptimalDenoiser(data, backend=backend)
    x = reference.model_space(data[:2], torch.float32) + 2 * torch.randn(2, 32)
    exact = reference.posterior(x.double(), data, 2.0, topk=900)
    weights = torch.zeros(2, 900, dtype=torch.float64).scatter(1, exact.indices, exact.weights)
    steps = weights.cumsum(1)
    asked = torch.cat([steps - weights / 4, steps - 3 * weights / 4], 1).clamp(0, 1 - 1e-12)
    source = denoiser.posterior(x, 2.0).source
    assert source is not None
    wide = (weights > 1e-6).repeat(1, 2)
    assert torch.equal(source.draw(asked)[wide], torch.arange(900).repeat(2, 2)[wide])


def test_draws_respect_class_and_order_of_the_data() -> None:
    data, labels = points(120, 5), torch.arange(120) % 4
    denoiser = geodiff.OptimalDenoiser(data, labels=labels)
    wanted = torch.tensor([3, 1])
    drawn = denoiser.posterior(torch.randn(2, 5), 5.0, wanted).sample(50)
    assert torch.equal(labels[drawn], wanted[:, None].expand(2, 50))
    assert len(drawn[0].unique()) > 10
    assert denoiser.posterior(torch.randn(2, 5), 5.0).sample(0).shape == (2, 0)


def test_a_posterior_without_data_says_so() -> None:
    posterior = reference.posterior(torch.randn(2, 3), torch.randn(4, 3), 1.0)
    with pytest.raises(RuntimeError, match="expected one that knows its data"):
        posterior.sample(1)


def test_it_prints_in_a_line() -> None:
    found = geodiff.OptimalDenoiser(torch.randn(9, 4)).posterior(torch.zeros(2, 4), 1.0, topk=3)
    assert repr(found).startswith("Posterior(mean=float32 [2, 4], log_prob=float32 [2], ")
    assert "indices=int64 [2, 3]" in repr(found)
    assert len(repr(found)) < 250
