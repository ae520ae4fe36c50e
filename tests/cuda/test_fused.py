"""The fused pass of sm_90a on the CPU emulator: what blocks send each other comes as late as a GPU may have it come."""

from typing import Any

import pytest
import torch

from geodiff import reference
from geodiff.backends.cuda import PASSES, CudaEngine
from tests.cuda import asking
from tests.cuda.asking import DENSE, answer, check, queries, stored


@pytest.fixture(autouse=True)
def _fused(emulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEODIFF_CUDA_PASS", "fused")
    machine(emulated, 8)


def machine(emulated: Any, multiprocessors: int) -> None:
    emulated.emulator.set_machine(multiprocessors, 232448, True)
    emulated.emulator.set_dense(True)


def made(emulated: Any, n: int, d: int, batch: int = 1) -> CudaEngine:
    engine = CudaEngine(stored(n, d, torch.uint8), emulated.core)
    assert engine._data.plan(rows=n, batch=batch).fused
    return engine


@pytest.mark.parametrize(
    ("n", "d", "batch", "cluster"),
    [(1, 16, 1, 1), (129, 48, 16, 1), (200, 272, 3, 1), (130, 784, 5, 2), (70, 1552, 2, 2), (65, 1552, 7, 4)],
)
def test_contract(emulated: Any, n: int, d: int, batch: int, cluster: int) -> None:
    engine = made(emulated, n, d, batch)
    assert engine._data.plan(rows=n, batch=batch).cluster == cluster
    asking.check_contract(engine, batch)


@pytest.mark.parametrize("batch", [1, 4, 5, 9, 16])
def test_clusters_of_eight(emulated: Any, batch: int) -> None:
    d = {1: 12_288, 4: 6160, 5: 3088, 9: 3072, 16: 1552}[batch]
    engine = made(emulated, 140, d, batch)
    plan = engine._data.plan(rows=140, batch=batch)
    assert (plan.cluster, plan.parts) == (8, 1)
    for sigma in (0.02, 20.0):
        x = queries(engine.rows, batch, sigma)
        check(answer(engine, x, sigma), x, engine.rows, sigma)


@pytest.mark.parametrize(("batch", "d"), [(1, 1552), (6, 784)])
def test_the_order_of_threads_does_not_matter(emulated: Any, batch: int, d: int) -> None:
    """One cluster takes all there is to do, more tiles than it has room for, and epochs end."""
    machine(emulated, 2)
    rows, middle = asking.near_tie(400, d)
    engine = CudaEngine(rows, emulated.core)
    assert engine._data.plan(rows=400, batch=batch + 1).parts == 1
    x = torch.cat([queries(rows, batch, 4.0), middle])
    levels = torch.tensor([4.0] * batch + [1e-6], dtype=torch.float64)  # the last is one for the float64 path
    asking.check_same_in_every_order(emulated.emulator, engine, x, levels)


def test_lanes_that_load_at_once_meet_in_no_bank(emulated: Any) -> None:
    engine = made(emulated, 200, 272)
    answer(engine, queries(engine.rows, 3, 2.0), 2.0)
    assert emulated.emulator.worst_conflict() == 1


@pytest.mark.parametrize("batch", [3, 6, 10])
@pytest.mark.parametrize("rise", [0.3, 0.7, 2.0, 7.0, 30.0, 90.0, 800.0])
def test_the_largest_logit_rises_from_tile_to_tile(emulated: Any, rise: float, batch: int) -> None:
    """By little, so that integers of one unit hold the weights; by more; by so much that what was before is nothing."""
    rows = stored(600, 32, torch.uint8)
    machine(emulated, 1)
    engine = CudaEngine(rows, emulated.core)
    plan = engine._data.plan(rows=600, batch=batch)
    assert plan.fused
    assert plan.parts == 1
    asking.check_rising(engine, rise, batch, 64)


@pytest.mark.heavy
def test_sums_that_an_integer_would_not_hold(emulated: Any) -> None:
    """2^16 rows of full weight, all white, and some more."""
    rows = torch.full((68_000, 16), 255, dtype=torch.uint8)
    rows[::100] = stored(680, 16, torch.uint8)
    machine(emulated, 1)
    engine = CudaEngine(rows, emulated.core)
    assert engine._data.plan(rows=len(rows), batch=1).parts == 1
    prior = torch.full((len(rows),), 0.69, dtype=torch.float64)
    prior[:64] = 0  # where the epoch begins
    prior = prior.log_softmax(0)
    x = queries(rows, 1, 1000.0)
    check(answer(engine, x, 1000.0, log_prior=prior), x, rows, 1000.0, prior)
    assert set(engine.last_paths.tolist()) == {DENSE}


@pytest.mark.parametrize(("begin", "end"), [(0, 300), (1, 290), (37, 165)])
def test_a_part_of_the_rows(emulated: Any, begin: int, end: int) -> None:
    asking.check_part(made(emulated, 300, 48), begin, end)


def test_single_precision_queries_are_taken_as_they_are(emulated: Any) -> None:
    asking.check_single_precision(made(emulated, 140, 32))


def test_priors_of_all_and_of_each_query(emulated: Any) -> None:
    asking.check_priors(made(emulated, 300, 32))


def test_rows_that_a_query_does_not_see(emulated: Any) -> None:
    engine = made(emulated, 150, 32)
    x = reference.model_space(engine.rows[[5, 70, 149]], torch.float64)
    found = answer(engine, x, 1.0, exclude=torch.tensor([5, -1, 149]))
    for q, kept in enumerate(([i for i in range(150) if i != 5], list(range(150)), list(range(149)))):
        expected = reference.posterior(x[q : q + 1], engine.rows[kept], 1.0)
        torch.testing.assert_close(found.mean[q], expected.mean[0], rtol=0, atol=1e-7)


def test_every_query_has_its_own_level_and_none_sees_the_others(emulated: Any) -> None:
    levels = torch.tensor([1e-3, 0.1, 1.0, 5.0, 50.0, 1000.0, 2.0] * 2, dtype=torch.float64)
    asking.check_levels(made(emulated, 200, 48), levels, (0, 8, 13), 1e-9)


@pytest.mark.parametrize(
    ("d", "batch", "cluster"),
    [(16, 1, 1), (3072, 1, 2), (3072, 4, 2), (3072, 5, 4), (3072, 16, 8), (12_288, 4, 8), (784, 16, 4)],
)
def test_plans_fill_the_machine(emulated: Any, d: int, batch: int, cluster: int) -> None:
    emulated.emulator.set_groups([18, 18, 18, 18, 18, 16, 16, 10])
    h100 = emulated.core.Machine(132, 232448, True, dense=True, pass_=PASSES["fused"])
    plan = emulated.core.plan(h100, 0, (1_000_000, d), batch)
    assert (plan.fused, plan.cluster, plan.batch) == (True, cluster, batch)
    assert plan.parts == sum(size // cluster for size in (18, 18, 18, 18, 18, 16, 16, 10)), "a block each"
    assert plan.stages >= 5
    assert plan.workspace <= 68 << 20


@pytest.mark.parametrize(("d", "batch"), [(12_288, 5), (6160, 9), (3088, 16), (16, 17), (12_304, 1), (24, 1)])
def test_what_does_not_fit_goes_another_way(emulated: Any, d: int, batch: int) -> None:
    rows = stored(20, d, torch.uint8)
    engine = CudaEngine(rows, emulated.core)
    plan = engine._data.plan(rows=20, batch=batch)
    assert not plan.fused
    assert plan.dense == (d % 16 == 0)


def test_the_environment_chooses_the_pass(emulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = stored(20, 48, torch.uint8)
    for name, expected in (("", "dense"), ("stream", "streams"), ("dense", "dense"), ("fused", "fused")):
        monkeypatch.setenv("GEODIFF_CUDA_PASS", name)
        plan = CudaEngine(rows, emulated.core)._data.plan(rows=20, batch=2)
        assert [kind for kind in ("streams", "dense", "fused") if getattr(plan, kind)] == [expected]
    monkeypatch.setenv("GEODIFF_CUDA_PASS", "fast")
    with pytest.raises(ValueError, match=r"^GEODIFF_CUDA_PASS: .*'fast'; allowed \['stream', 'dense', 'fused'\]"):
        CudaEngine(rows, emulated.core)


def test_what_the_pass_cannot_promise_is_done_in_float64(emulated: Any) -> None:
    asking.check_open_queries(emulated.core, 150, 48)


def test_exact_duplicates_share_the_weight(emulated: Any) -> None:
    asking.check_duplicates(emulated.core, 300, 32)
