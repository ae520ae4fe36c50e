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


def check_contract(engine: CudaEngine, batch: int) -> None:
    """Contract 1 at every sigma, by a pass over bytes where sigma is not small."""
    for sigma in SIGMAS:
        x = queries(engine.rows, batch, sigma)
        check(answer(engine, x, sigma, topk=min(2, len(engine.rows))), x, engine.rows, sigma)
        assert set(engine.last_paths.tolist()) <= ({DENSE, EXACT} if sigma < 0.3 else {DENSE})


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


def check_part(engine: CudaEngine, begin: int, end: int) -> None:
    x = queries(engine.rows, 3, 1.0)
    found = answer(engine, x, 1.0, rows=range(begin, end))
    assert set(engine.last_paths.tolist()) == {DENSE}
    expected = reference.posterior(x, engine.rows[begin:end], 1.0)
    torch.testing.assert_close(found.mean, expected.mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.log_prob, expected.log_prob, rtol=0, atol=1e-4)


def check_single_precision(engine: CudaEngine) -> None:
    """float32 queries are answered as the same numbers in float64 are."""
    x = queries(engine.rows, 4, 1.0).float()
    query = Query(x, torch.ones(4, dtype=torch.float64), rows=range(len(engine.rows)))
    mean, _ = engine._run(engine._placed(query, (torch.float32,)))
    assert torch.equal(mean, engine._run(engine._placed(query))[0])


def check_priors(engine: CudaEngine) -> None:
    """Of all queries and of each, over 300 rows of which whole tiles, and some of the next, are left out."""
    prior = torch.randn(300, dtype=torch.float64)
    prior[:133] = -torch.inf
    prior = prior.log_softmax(0)
    for sigma in (0.05, 2.0, 100.0):
        x = queries(engine.rows, 3, sigma)
        check(answer(engine, x, sigma, log_prior=prior), x, engine.rows, sigma, prior)
    own = torch.stack([prior, torch.randn(300, dtype=torch.float64).log_softmax(0)])
    x = queries(engine.rows, 2, 2.0)
    found = answer(engine, x, 2.0, log_prior=own)
    for q in range(2):
        expected = reference.posterior(x[q : q + 1], engine.rows, 2.0, log_weights=own[q])
        torch.testing.assert_close(found.mean[q], expected.mean[0], rtol=0, atol=1e-7)


def check_levels(engine: CudaEngine, levels: Tensor, alone: tuple[int, ...], rtol: float) -> None:
    """Every query has its own level and sees none of the others."""
    x = torch.cat([queries(engine.rows, 1, float(level)) for level in levels])
    together = answer(engine, x, levels)
    check(together, x, engine.rows, levels)
    for q in alone:
        found = answer(engine, x[q : q + 1], levels[q : q + 1])
        torch.testing.assert_close(found.mean[0], together.mean[q], rtol=rtol, atol=rtol)


def check_rising(engine: CudaEngine, rise: float, batch: int, tile: int) -> None:
    """The largest logit rises by about `rise` from one tile of so many rows to the next, falls, or does both."""
    rows, n = engine.rows, len(engine.rows)
    number = torch.arange(n) // tile
    for steps in (number, 10 - number, torch.tensor([0, 3, 1, 3, 2, 4, 0, 5, 1, 4])[number]):
        prior = (rise * steps + 0.3 * torch.randn(n, dtype=torch.float64)).log_softmax(0)
        x = queries(rows, batch, 40.0)
        check(answer(engine, x, 40.0, log_prior=prior), x, rows, 40.0, prior)
        assert set(engine.last_paths.tolist()) == {DENSE}
