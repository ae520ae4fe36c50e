"""Made-up rows and queries for the emulated GPU core, and what its answers are held to."""

from typing import Any

import pytest
import torch
from torch import Tensor

from geodiff import reference
from geodiff.backends import Query
from geodiff.backends.cuda import CudaEngine
from geodiff.base.dtypes import STORED
from geodiff.base.posterior import Posterior
from geodiff.reference import moments

DENSE, EXACT = 1, 3
SIGMAS = (1e-3, 0.02, 0.3, 2.0, 30.0, 1000.0)
DTYPES = STORED
BOUND = 1e-7  # what both paths reach; the contract asks for 1e-5


def stored(n: int, d: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    pixels = torch.randint(0, 256, (n, d), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return pixels if dtype == torch.uint8 else reference.model_space(pixels, torch.float64).to(dtype)


def queries(rows: Tensor, batch: int, sigma: float) -> Tensor:
    points = reference.model_space(rows, torch.float64)
    index = torch.randint(len(rows), (batch,))
    return points[index] + sigma * torch.randn(batch, rows.shape[1], dtype=torch.float64)


def answer(engine: CudaEngine, x: Tensor, sigma: float | Tensor, **options: Any) -> Posterior:
    levels = torch.as_tensor(sigma, dtype=torch.float64).expand(len(x))
    topk, asked = options.pop("topk", 0), {"rows": range(len(engine.rows)), **options}
    return engine.posterior(Query(x, levels, **asked), topk)


def check(found: Posterior, x: Tensor, rows: Tensor, sigma: float | Tensor, prior: Tensor | None = None) -> None:
    expected = reference.posterior(x, rows, sigma, topk=found.indices.shape[1], log_weights=prior)
    least = 0.01 * reference.model_space(rows, torch.float64).norm(dim=1).max()
    error = (found.mean - expected.mean).norm(dim=1) / expected.mean.norm(dim=1).clamp_min(least)
    assert error.max() <= BOUND, f"mean: {error.tolist()}"
    allowed = 1e-3 + 1e-6 * expected.log_prob.abs()
    assert ((found.log_prob - expected.log_prob).abs() <= allowed).all(), "log_prob"
    torch.testing.assert_close(found.entropy, expected.entropy, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.ess, expected.ess, rtol=1e-4, atol=1e-4)
    trace = moments.trace(x.double(), rows, sigma, log_weights=prior)
    assert found.trace is not None
    allowed = 1e-6 * trace + 1e-9 * torch.as_tensor(sigma).square() * rows.shape[1] + 1e-12
    assert ((found.trace - trace).abs() <= allowed).all(), "trace"
    assert torch.equal(found.indices, expected.indices), "indices"
    torch.testing.assert_close(found.weights, expected.weights, rtol=1e-4, atol=1e-6)


def check_products(engine: CudaEngine, x: Tensor, rows: Tensor, width: int) -> None:
    """Inner products, weighted means and the distances to `width` rows for each query, beside the formulas."""
    points, (batch, n) = reference.model_space(rows, torch.float64), (len(x), len(rows))
    torch.testing.assert_close(engine.inner_products(x), x @ points.T, rtol=1e-12, atol=1e-12)
    logits = torch.randn(batch, n, dtype=torch.float64)
    torch.testing.assert_close(engine.weighted_mean(logits, 1e-5), logits.softmax(1) @ points, rtol=1e-12, atol=1e-12)
    listed = torch.randint(n, (batch, width))
    expected = (x[:, None] - points[listed]).square().sum(2)
    torch.testing.assert_close(engine.squared_distances(x, listed), expected, rtol=1e-12, atol=1e-12)


def check_same_in_every_order(emulator: Any, engine: CudaEngine, x: Tensor, levels: Tensor) -> None:
    """Bit for bit, in whatever order threads run between barriers, or blocks or warps one after the other."""
    found = []
    for order, ahead in ((0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (1, 1), (0, 2), (1, 2)):  # then blocks, then warps
        emulator.set_order(order)
        emulator.set_ahead(ahead)
        found.append(answer(engine, x, levels))
    assert set(engine.last_paths.tolist()) == {DENSE, EXACT}
    for other in found[1:]:
        for name in ("mean", "log_prob", "entropy", "ess"):
            assert torch.equal(getattr(other, name), getattr(found[0], name)), name


def near_tie(n: int, d: int) -> tuple[Tensor, Tensor]:
    """Rows of which two are one level of one pixel apart, and the query halfway between them, [1, d]."""
    rows = stored(n, d, torch.uint8)
    rows[7] = rows[3]
    rows[7, 0] ^= 1
    middle = reference.model_space(rows[[3, 7]], torch.float64).mean(0, keepdim=True)
    middle[0, 5] += 0.0123  # no whole number of a query's steps
    return rows, middle


def check_open_queries(core: Any, n: int, d: int) -> None:
    """What a pass over bytes cannot promise is answered in float64, and nothing else is."""
    rows, middle = near_tie(n, d)
    engine = CudaEngine(rows, core)
    for sigma in (1e-6, 1e-5):
        check(answer(engine, middle, sigma, topk=2), middle, rows, sigma)
        assert engine.last_paths.tolist() == [EXACT]
    check(answer(engine, middle, 0.5), middle, rows, 0.5)
    assert engine.last_paths.tolist() == [DENSE]


def check_duplicates(core: Any, n: int, d: int) -> None:
    """Of n rows the last and the third are the same: they share the weight, the lower one first."""
    rows = stored(n, d, torch.uint8)
    rows[n - 1] = rows[2]
    engine = CudaEngine(rows, core)
    x = reference.model_space(rows[2:3], torch.float64)
    found = answer(engine, x, 1e-3, topk=3)
    check(found, x, rows, 1e-3)
    assert found.indices[0, :2].tolist() == [2, n - 1]
    assert found.weights[0].tolist() == pytest.approx([0.5, 0.5, 0.0])
