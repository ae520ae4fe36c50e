"""Contract 1 where rows come many times: what one of them errs by, all of them do, and nothing averages out."""

import math

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import OptimalDenoiser
from geodiff.backends import cpu

DTYPES = (torch.uint8, torch.float32, torch.bfloat16)


def rows_of(count: int, d: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """[count, d], each but the first near the one before."""
    levels = torch.randint(0, 256, (1, d), generator=torch.Generator().manual_seed(seed)).repeat(count, 1)
    for i in range(1, count):
        levels[i:, 12 * (i - 1) : 12 * i] = (levels[i:, 12 * (i - 1) : 12 * i] + 8).clamp(max=255)
    return levels.to(torch.uint8) if dtype == torch.uint8 else (levels / 127.5 - 1).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("isa", cpu.isas())
def test_log_p_of_one_row_that_comes_many_times(isa: str, dtype: torch.dtype) -> None:
    row = rows_of(1, 64, dtype)
    x = geodiff.reference.model_space(row, torch.float64)
    x = x + 0.04 * torch.randn(32, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with cpu.use_isa(isa):
        found = OptimalDenoiser(row.repeat(20_000, 1), backend="cpu").posterior(x, 0.04)
    exact = geodiff.reference.posterior(x, row, 0.04)
    assert ((found.log_prob - exact.log_prob).abs() <= 1e-3 + 1e-6 * exact.log_prob.abs()).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("isa", cpu.isas())
def test_sums_of_few_rows_that_come_many_times(isa: str, dtype: torch.dtype) -> None:
    """In float32 the same added again and again rounds to one side."""
    for count, copies, sigma in ((2, 10_000, 0.1), (3, 20_000, 0.0577)):
        rows = rows_of(count, 256, dtype, seed=2)
        x = geodiff.reference.model_space(rows, torch.float64)[torch.arange(40) % count]
        x = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        exact = geodiff.reference.posterior(x, rows, sigma).mean
        with cpu.use_isa(isa):
            denoiser = OptimalDenoiser(rows.repeat(copies, 1), backend="cpu", tol=1e-6)
            for batch in (40, 1):
                found = denoiser.posterior(x[:batch], sigma).mean
                off = (found - exact[:batch]).norm(dim=1)
                assert (off <= 1e-6 * exact[:batch].norm(dim=1)).all(), (count, batch, off)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_priors_of_rows_that_are_all_the_same(dtype: torch.dtype) -> None:
    """Whatever is left out of them leaves r alone, but log p and the effective number of rows."""
    row = rows_of(1, 784, dtype)
    generator = torch.Generator().manual_seed(4)
    log_weights = 3 * torch.randn(2000, generator=generator, dtype=torch.float64)
    x = geodiff.reference.model_space(row, torch.float64)
    x = x + 0.5 * torch.randn(3, 784, generator=generator, dtype=torch.float64)
    data = row.repeat(2000, 1)
    exact = geodiff.reference.posterior(x, data, 0.5, log_weights=log_weights)
    for batch in (3, 1):
        found = OptimalDenoiser(data, backend="cpu", log_weights=log_weights).posterior(x[:batch], 0.5)
        assert torch.allclose(found.log_prob, exact.log_prob[:batch], rtol=1e-6, atol=1e-3)
        assert torch.allclose(found.ess, exact.ess[:batch], rtol=1e-4)


def test_log_p_of_rows_that_are_nearly_the_same() -> None:
    generator = torch.Generator().manual_seed(11)
    data = 1 + 1e-6 * torch.randn(2000, 64, generator=generator)
    log_weights = 4 * torch.randn(2000, generator=generator)
    x = data[:1] + 0.5 * torch.randn(1, 64, generator=generator)
    found = OptimalDenoiser(data, backend="cpu", log_weights=log_weights, tol=1e-3).posterior(x, 0.5)
    exact = geodiff.reference.posterior(x.double(), data, 0.5, log_weights=log_weights)
    assert abs(found.log_prob.item() - exact.log_prob.item()) <= 1e-4


@pytest.mark.parametrize("isa", cpu.isas())
def test_a_row_that_comes_twice_does_not_cost_float64(isa: str) -> None:
    """One row has most of the weight and 20,000 the rest: no more additions than copies round to one side."""
    generator = torch.Generator().manual_seed(12)
    base = torch.randint(20, 230, (64,), generator=generator)
    changed = torch.rand(20_000, 64, generator=generator).argsort(1) < 12
    others = base + 8 * changed * (2 * torch.randint(0, 2, (20_000, 64), generator=generator) - 1)
    data = torch.cat([others[:10_000], base.expand(2, 64), others[10_000:]]).to(torch.uint8)
    sigma = math.sqrt(12 * 8**2 / 24) / 127.5  # each of the others weighs e^-12
    x = geodiff.reference.model_space(base.to(torch.uint8), torch.float64).expand(8, 64)
    x = x + 0.02 * sigma * torch.randn(8, 64, generator=generator, dtype=torch.float64)
    exact = geodiff.reference.posterior(x, data, sigma)
    assert (exact.ess < 3).all()
    with cpu.use_isa(isa):
        denoiser = OptimalDenoiser(data, backend="cpu")
        found = denoiser(x, sigma)
    assert ((found - exact.mean).norm(dim=1) <= 1e-5 * exact.mean.norm(dim=1)).all()
    paths = denoiser._points.engines.serving().last_paths
    assert not (paths == cpu.PATHS.index("exact")).any(), paths
