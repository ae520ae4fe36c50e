"""The dense pass of sm_90a on the CPU emulator: its copies and products come as late as a GPU may have them come."""

from typing import Any

import pytest
import torch

from geodiff.backends.cuda import CudaEngine
from tests.cuda.asking import (
    answer,
    check,
    check_contract,
    check_duplicates,
    check_levels,
    check_open_queries,
    check_part,
    check_priors,
    check_same_in_every_order,
    check_single_precision,
    near_tie,
    queries,
    stored,
)


@pytest.fixture(autouse=True)
def _dense(emulated: Any) -> None:
    emulated.emulator.set_machine(6, 232448, True)
    emulated.emulator.set_dense(True)


def made(emulated: Any, n: int, d: int) -> CudaEngine:
    engine = CudaEngine(stored(n, d, torch.uint8), emulated.core)
    assert engine._data.plan(rows=n, batch=1).dense
    return engine


@pytest.mark.parametrize(("n", "d", "batch"), [(1, 16, 1), (129, 48, 16), (200, 272, 5), (130, 160, 17), (40, 32, 70)])
def test_contract(emulated: Any, n: int, d: int, batch: int) -> None:
    engine = made(emulated, n, d)
    check_contract(engine, batch)


@pytest.mark.parametrize(("batch", "d"), [(5, 1168), (20, 656)])
def test_the_order_of_threads_does_not_matter(emulated: Any, batch: int, d: int) -> None:
    """One cluster takes all there is to do, more tiles than it has stages for."""
    emulated.emulator.set_machine(2, 232448, True)
    emulated.emulator.set_dense(True)
    rows, middle = near_tie(400, d)
    engine = CudaEngine(rows, emulated.core)
    x = torch.cat([queries(rows, batch, 4.0), middle])
    levels = torch.tensor([4.0] * batch + [1e-6], dtype=torch.float64)  # the last is one for the float64 path
    check_same_in_every_order(emulated.emulator, engine, x, levels)


def test_lanes_that_load_at_once_meet_in_no_bank(emulated: Any) -> None:
    engine = made(emulated, 200, 272)
    answer(engine, queries(engine.rows, 3, 2.0), 2.0)
    assert emulated.emulator.worst_conflict() == 1


@pytest.mark.parametrize(("begin", "end"), [(0, 300), (1, 290), (37, 165)])
def test_a_part_of_the_rows(emulated: Any, begin: int, end: int) -> None:
    check_part(made(emulated, 300, 48), begin, end)


def test_single_precision_queries_are_taken_as_they_are(emulated: Any) -> None:
    check_single_precision(made(emulated, 140, 32))


@pytest.mark.parametrize("d", [8, 24, 33])
def test_rows_that_the_memory_engine_cannot_copy_go_another_way(emulated: Any, d: int) -> None:
    rows = stored(50, d, torch.uint8)
    engine = CudaEngine(rows, emulated.core)
    assert not engine._data.plan(rows=50, batch=3).dense
    assert not emulated.core.dense(device=0, dtype=0, d=d, batch=3)
    x = queries(rows, 3, 1.0)
    check(answer(engine, x, 1.0), x, rows, 1.0)


def test_priors_of_all_and_of_each_query(emulated: Any) -> None:
    check_priors(made(emulated, 300, 32))


def test_every_query_has_its_own_level_and_none_sees_the_others(emulated: Any) -> None:
    levels = torch.tensor([1e-3, 0.1, 1.0, 5.0, 50.0, 1000.0, 2.0] * 3, dtype=torch.float64)
    check_levels(made(emulated, 200, 48), levels, (0, 8, 20), 1e-12)


def test_what_the_pass_cannot_promise_is_done_in_float64(emulated: Any) -> None:
    check_open_queries(emulated.core, 150, 48)


def test_exact_duplicates_share_the_weight(emulated: Any) -> None:
    check_duplicates(emulated.core, 300, 32)


@pytest.mark.parametrize("d", [16, 784, 3072, 12288, 65536])
@pytest.mark.parametrize("batch", [1, 16, 64, 1000])
@pytest.mark.parametrize("n", [1, 50_000, 1_281_167])
def test_plans_keep_to_their_budget(emulated: Any, n: int, d: int, batch: int) -> None:
    emulated.emulator.set_machine(132, 232448, True)
    emulated.emulator.set_dense(True)
    plan = emulated.core.plan(emulated.core.Machine(132, 232448, True, dense=True), 0, (n, d), batch)
    assert plan.dense
    assert plan.shares * 2**16 >= n, "an integer would overflow"
    assert plan.shares <= -(-n // 128)
    assert 1 <= plan.batch <= batch
    sums = plan.shares * -(-plan.batch // 64) * 64 * d * 8
    assert plan.workspace <= (1 << 30) + sums + 2000 * (plan.batch + 64) * 8 + (plan.batch + 64) * d * 24 + (1 << 22)
