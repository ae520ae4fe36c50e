"""A ceiling on what an evaluation asks of the device: kernels launched, and waits, by path and dtype."""

from typing import Any

import pytest
import torch
from torch import Tensor

from geodiff import OptimalDenoiser, reference
from geodiff.backends import Query
from geodiff.backends.combination import Combination
from geodiff.backends.triton import PATHS, TritonEngine
from geodiff.denoiser.graph_recording import recordable_engine, unchecked
from geodiff.kernels import evaluate
from geodiff.kernels.configs import ROWS, SPLIT, WEIGHTED_SUM
from geodiff.kernels.prepared import Prepared
from geodiff.kernels.weighted_sum import PARTS, Sums, splits
from tests.kernels.interpreted.counting import Counted, counted
from tests.kernels.interpreted.paths import send_to

MOST = 12
BATCH, N, D = 3, 150, 9

CASES = [
    (stored, path)
    for stored in (torch.uint8, torch.float16, torch.bfloat16, torch.float32)
    for path in PATHS
    if path != "dense_fine" or stored == torch.uint8  # floats have no finer dense pass
]


def some_data(stored: torch.dtype) -> Tensor:
    points = torch.rand(N, D) * 0.8 + 0.1  # far enough from 0 that float32 sums are good enough
    return ((points + 1) * 127.5).round().to(torch.uint8) if stored == torch.uint8 else points.to(stored)


def within(count: Counted) -> None:
    assert not count.waits, f"the host waits: {dict(count.waits)}"
    assert count.launches.total() <= MOST, f"{count.launches.total()} launches: {dict(count.launches)}"


@pytest.mark.parametrize(("stored", "path"), CASES, ids=str)
def test_a_step_of_a_solver(stored: torch.dtype, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    level = send_to(path, monkeypatch)
    denoiser = OptimalDenoiser(some_data(stored), backend="triton")
    engine = recordable_engine(denoiser, BATCH)
    assert isinstance(engine, TritonEngine), "an evaluation can be recorded into a CUDA graph"
    x = reference.model_space(denoiser.data[:BATCH], torch.float32) + level * torch.randn(BATCH, D)
    sigma, before, out = torch.full((BATCH,), level, dtype=torch.float64), torch.randn(BATCH, D), torch.empty(BATCH, D)
    with counted(monkeypatch) as count:
        unchecked(denoiser, x, sigma, 0.7, [(0.1, x), (0.3, before)], out)
    within(count)
    assert engine.last_paths.tolist() == [PATHS.index(path)] * BATCH
    expected = 0.7 * reference.posterior(x.double(), denoiser.data, level).mean + 0.1 * x.double() + 0.3 * before
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("stored", "path"), CASES, ids=str)
@pytest.mark.parametrize("prior", ["none", "one", "own"])
def test_a_posterior(stored: torch.dtype, path: str, prior: str, monkeypatch: pytest.MonkeyPatch) -> None:
    level = send_to(path, monkeypatch)
    data = some_data(stored)
    engine = TritonEngine(data)
    x = reference.model_space(data[:BATCH], torch.float64) + level * torch.randn(BATCH, D, dtype=torch.float64)
    shape = {"none": (), "one": (N,), "own": (BATCH, N)}[prior]
    log_prior = torch.randn(shape, dtype=torch.float64).log_softmax(-1) if shape else None
    query = Query(x, torch.full((BATCH,), level, dtype=torch.float64), range(N), log_prior)
    with counted(monkeypatch) as count:
        found = engine.posterior(query)
    within(count)
    assert engine.last_paths.tolist() == [PATHS.index(path)] * BATCH
    for b in range(BATCH):
        own = log_prior[b] if prior == "own" else log_prior
        alone = reference.posterior(x[b : b + 1], data, level, log_weights=own)
        torch.testing.assert_close(found.mean[b : b + 1], alone.mean, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("stored", "n", "d", "batch"),
    [
        *((stored, 50_000, 3072, batch) for stored in PARTS for batch in (1, 16, 17, 64, 256, 1024)),
        *((torch.uint8, 1_281_167, 12288, batch) for batch in (1, 16, 64)),
    ],
    ids=str,
)
def test_one_pass_of_one_chunk_at_the_sizes_of_the_goals(stored: torch.dtype, n: int, d: int, batch: int) -> None:
    engine = TritonEngine(torch.ones(2, d).to(stored))
    query = Query(torch.zeros(batch, d), torch.ones(batch, dtype=torch.float64), range(2))
    assert len(list(engine._passes(query))) == 1
    assert n <= evaluate.chunk_rows(engine._data, batch) <= ROWS
    found = Sums.empty(n, batch, d, torch.device("meta"))
    assert found.per_group * len(found.sums) >= splits(n)
    assert found.sums.numel() * found.sums.itemsize <= 2**27
    # What a GPU of 132 processors is filled by.
    wide = max(config.kwargs["BB"] * config.kwargs["BD"] for config in WEIGHTED_SUM[stored])
    assert found.sums.numel() / wide >= 800 or found.per_group == 1


def test_logits_and_weights_of_a_chunk_are_bounded() -> None:
    for stored in PARTS:
        data = Prepared(torch.ones(2, 3).to(stored))
        for batch in (1, 7, 64, 1024):
            rows = evaluate.chunk_rows(data, batch)
            size = 8 + PARTS[stored][0] * 2
            assert rows % SPLIT == 0
            assert rows * batch * size <= 2**30
            assert rows == ROWS or (rows + SPLIT) * batch * size > 2**30


def test_four_more_for_each_further_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "_BYTES", 1)
    engine = TritonEngine(torch.randint(0, 256, (2050, 3), dtype=torch.uint8))
    x, out = torch.zeros(2, 3), torch.empty(2, 3)
    query = Query(x, torch.ones(2, dtype=torch.float64), range(2050))
    launches = []
    for rows in (range(1024), range(2050)):
        with counted(monkeypatch) as count:
            engine.combine(Query(query.x, query.sigma, rows), Combination(1.0, (), out))
        within_chunks = count.launches.total()
        assert not count.waits
        launches.append(within_chunks)
    assert launches[1] - launches[0] == 2 * 4


def test_the_count_sees_what_it_is_there_for(monkeypatch: pytest.MonkeyPatch) -> None:
    a = torch.randn(5)

    def of(work: Any) -> tuple[int, int]:
        with counted(monkeypatch) as count:
            work()
        return count.launches.total(), count.waits.total()

    assert of(lambda: a[1:].view(2, 2).detach()) == (0, 0)
    assert of(lambda: a + 1) == (1, 0)
    assert of(lambda: a[a > 0])[1] >= 1
    assert of(lambda: (a > 0).nonzero())[1] == 1
    for work in (lambda: bool(a[0] > 0), lambda: float(a[0]), lambda: a.tolist(), lambda: a.cpu(), lambda: a[0].item()):
        assert of(work)[1] >= 1
    assert of(lambda: torch.tensor([1.0]))[1] == 1
    assert of(lambda: a.double().sum())[0] == 2
