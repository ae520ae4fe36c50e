"""Every CUDA kernel on the CPU emulator: the contract against the float64 reference, over shapes that divide no tile.

What this cannot see is the hardware itself: memory ordering, asynchronous copies, speed. `tests/gpu` and
compute-sanitizer look at those where there is a GPU.
"""

from typing import Any

import pytest
import torch

from geodiff import OptimalDenoiser, reference
from geodiff.backends import Query, selection
from geodiff.backends.combination import Combination
from geodiff.backends.cuda import CudaEngine
from geodiff.reference import moments
from tests.cuda.asking import (
    DENSE,
    DTYPES,
    SIGMAS,
    answer,
    check,
    check_duplicates,
    check_open_queries,
    check_products,
    check_rising,
    check_same_in_every_order,
    near_tie,
    queries,
    stored,
)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "d", "batch"), [(1, 1, 1), (31, 33, 4), (33, 64, 3), (65, 7, 5)])
def test_contract(emulated: Any, dtype: torch.dtype, n: int, d: int, batch: int) -> None:
    rows = stored(n, d, dtype)
    engine = CudaEngine(rows, emulated.core)
    for sigma in SIGMAS:
        x = queries(rows, batch, sigma)
        check(answer(engine, x, sigma, topk=min(n, 3)), x, rows, sigma)
    torch.testing.assert_close(engine.mean, reference.model_space(rows, torch.float64).mean(0))


@pytest.mark.parametrize(
    ("shared", "clusters", "batch", "cluster", "stages"),
    [
        (232448, True, 4, 1, 2),
        (80000, True, 4, 2, 2),
        (40000, True, 4, 4, 2),
        (30000, True, 4, 8, 2),
        (11500, True, 4, 8, 1),
        (50000, False, 4, 1, 1),
        (150000, True, 17, 2, 2),
        (45000, True, 17, 8, 2),
    ],
)
def test_every_way_to_lay_a_tile_out(
    emulated: Any, shared: int, clusters: bool, batch: int, cluster: int, stages: int
) -> None:
    rows = stored(100, 500, torch.uint8)
    emulated.emulator.set_machine(8, shared, clusters)
    engine = CudaEngine(rows, emulated.core)
    plan = engine._data.plan(rows=len(rows), batch=batch)
    assert (plan.streams, plan.cluster, plan.stages) == (True, cluster, stages)
    x = queries(rows, batch, 3.0)
    check(answer(engine, x, 3.0), x, rows, 3.0)
    assert engine.last_paths.tolist() == [DENSE] * batch


def test_code_for_an_older_chip_is_not_sent_into_clusters(emulated: Any) -> None:
    """As on a chip later than all the code was compiled for: there every block would take itself for the first one."""
    rows = stored(100, 500, torch.uint8)
    emulated.emulator.set_machine(8, 40000, True)
    emulated.emulator.set_clusters_compiled(False)
    engine = CudaEngine(rows, emulated.core)
    assert engine._data.plan(rows=len(rows), batch=4).cluster == 1
    x = queries(rows, 4, 3.0)
    check(answer(engine, x, 3.0), x, rows, 3.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_more_queries_than_a_grid_has_rows(emulated: Any, dtype: torch.dtype) -> None:
    rows = stored(9, 3, dtype)
    emulated.emulator.set_most_blocks(64)  # 65,535 would take long here
    engine = CudaEngine(rows, emulated.core)
    x = queries(rows, 130, 1.0)
    check(answer(engine, x, 1.0, topk=2), x, rows, 1.0)
    check_products(engine, x, rows, 2)


def test_the_order_of_threads_does_not_matter(emulated: Any) -> None:
    """A missing barrier would show: between two of them threads run one after the other, in another order each time."""
    rows, middle = near_tie(70, 150)
    emulated.emulator.set_machine(8, 21000, True)
    engine = CudaEngine(rows, emulated.core)
    assert engine._data.plan(rows=70, batch=6).cluster > 1
    x = torch.cat([queries(rows, 5, 4.0), middle])
    levels = torch.tensor([4.0] * 5 + [1e-6], dtype=torch.float64)  # the last is one for the float64 path
    check_same_in_every_order(emulated.emulator, engine, x, levels)


@pytest.mark.parametrize("batch", [4, 16])
def test_lanes_that_add_or_load_at_once_meet_in_no_bank(emulated: Any, batch: int) -> None:
    rows = stored(70, 520, torch.uint8)
    answer(CudaEngine(rows, emulated.core), queries(rows, batch, 2.0), 2.0)
    assert emulated.emulator.worst_conflict() == 1


@pytest.mark.parametrize("batch", [3, 6])
@pytest.mark.parametrize("rise", [0.3, 2.0, 5.0, 7.0, 30.0, 90.0, 800.0])
def test_the_largest_logit_rises_from_tile_to_tile(emulated: Any, rise: float, batch: int) -> None:
    """By little, so that integers of one unit hold the weights; by more; by so much that what was before is nothing."""
    rows = stored(300, 21, torch.uint8)
    emulated.emulator.set_machine(1, 232448, True)
    engine = CudaEngine(rows, emulated.core)
    assert engine._data.plan(rows=300, batch=batch).parts == 2
    check_rising(engine, rise, batch, 32)


def test_sums_that_an_integer_would_not_hold(emulated: Any) -> None:
    """Few rows far below the others, in whose unit an int64 holds no more than 800 of the others."""
    rows = 255 - stored(3008, 8, torch.uint8) // 16
    emulated.emulator.set_machine(1, 232448, True)
    engine = CudaEngine(rows, emulated.core)
    prior = torch.zeros(3008, dtype=torch.float64)
    prior[:32] = prior[1504:1536] = -5.9  # where the two parts begin
    prior = prior.log_softmax(0)
    x = queries(rows, 4, 1000.0)
    check(answer(engine, x, 1000.0, log_prior=prior), x, rows, 1000.0, prior)
    assert set(engine.last_paths.tolist()) == {DENSE}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_more_blocks_than_a_grid_has(emulated: Any, dtype: torch.dtype) -> None:
    rows = stored(30, 300, dtype)
    engine = CudaEngine(rows, emulated.core)
    x = queries(rows, 7, 1.0)
    emulated.emulator.set_most_blocks_along_x(9)  # two queries' rows, four queries' columns
    check_products(engine, x, rows, 20)


#: Multiprocessors in groups, as clusters find them: these have the 30 clusters of eight, and the 15 where one block
#: fills a multiprocessor, that an H100 said it had (bench/results/gpu_h100_first.json).
UNEVEN, EVEN = [18, 18, 18, 18, 18, 16, 16, 10], [18] * 6 + [12] * 2


@pytest.mark.parametrize("groups", [UNEVEN, EVEN, [132]])
@pytest.mark.parametrize(("d", "batch"), [(3072, 1), (3072, 16), (3072, 64), (12288, 1), (12288, 64)])
def test_all_clusters_run_at_once(emulated: Any, groups: list[int], d: int, batch: int) -> None:
    emulated.emulator.set_groups(groups)
    plan = emulated.core.plan(emulated.core.Machine(*H100), dtype=0, shape=(1_000_000, d), batch=batch)
    clusters = plan.parts * -(-plan.batch // plan.queries)
    assert plan.batch == batch or plan.batch >= 56
    per = 2 if d == 3072 else 1
    at_once = sum(per * size // plan.cluster for size in groups)
    assert at_once / 2 < clusters <= at_once


@pytest.mark.parametrize("begin", [0, 1, 3])
@pytest.mark.parametrize("d", [16, 20, 21])
def test_rows_that_lie_anywhere(emulated: Any, begin: int, d: int) -> None:
    rows = stored(40, d, torch.uint8)
    engine = CudaEngine(rows, emulated.core)
    x = queries(rows, 2, 1.0)
    found = answer(engine, x, 1.0, rows=range(begin, 37), topk=2)
    expected = reference.posterior(x, rows[begin:37], 1.0, topk=2)
    torch.testing.assert_close(found.mean, expected.mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.log_prob, expected.log_prob, rtol=0, atol=1e-4)
    assert torch.equal(found.indices, expected.indices + begin)


def test_what_the_pass_cannot_promise_is_done_in_float64(emulated: Any) -> None:
    check_open_queries(emulated.core, 50, 40)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch", [1, 2, 4, 5, 7])
def test_contract_of_queries_that_read_rows_together(emulated: Any, dtype: torch.dtype, batch: int) -> None:
    rows = stored(200, 40, dtype)
    emulated.emulator.set_machine(1, 232448, True)  # few parts, of several tiles
    engine = CudaEngine(rows, emulated.core)
    # Of bytes those at small levels stay open and read together: all, some, and one of a block.
    sigma = torch.tensor([1e-3, 3.0, 0.5, 2e-3, 40.0, 5e-3, 1.0], dtype=torch.float64)[:batch]
    x = queries(rows, batch, 1.0)
    prior = torch.randn(len(rows), dtype=torch.float64)
    prior[::3] = -torch.inf
    prior = prior.log_softmax(0)
    exclude = torch.arange(batch) * 9 + 1
    found = answer(engine, x, sigma, log_prior=prior, exclude=exclude)
    for b in range(batch):
        seen = prior.index_fill(0, exclude[b], -torch.inf)
        one = slice(b, b + 1)
        expected = reference.posterior(x[one], rows, sigma[b], log_weights=seen)
        torch.testing.assert_close(found.mean[one], expected.mean, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(found.ess[one], expected.ess, rtol=1e-6, atol=1e-9)


def test_exact_duplicates_share_the_weight(emulated: Any) -> None:
    check_duplicates(emulated.core, 40, 33)


def test_a_prior_counts_and_may_leave_rows_out(emulated: Any) -> None:
    rows = stored(45, 20, torch.uint8)
    engine = CudaEngine(rows, emulated.core)
    prior = torch.randn(45, dtype=torch.float64)
    prior[:33] = -torch.inf  # a whole tile, and one row of the next
    prior = prior.log_softmax(0)
    for sigma in (0.05, 2.0, 100.0):
        x = queries(rows, 3, sigma)
        check(answer(engine, x, sigma, log_prior=prior), x, rows, sigma, prior)


def test_every_query_may_have_its_own_prior(emulated: Any) -> None:
    rows = stored(40, 20, torch.uint8)
    engine = CudaEngine(rows, emulated.core)
    prior = torch.randn(2, 37, dtype=torch.float64).log_softmax(1)
    padded = torch.cat([torch.full((2, 3), -torch.inf), prior], 1)
    x = queries(rows, 2, 2.0)
    found = answer(engine, x, 2.0, log_prior=padded, rows=range(3, 40), topk=2)
    for q in range(2):
        expected = reference.posterior(x[q : q + 1], rows[3:], 2.0, topk=2, log_weights=prior[q])
        torch.testing.assert_close(found.mean[q], expected.mean[0], rtol=0, atol=1e-7)
        trace = moments.trace(x[q : q + 1], rows[3:], 2.0, log_weights=prior[q])
        assert found.trace is not None
        torch.testing.assert_close(found.trace[q], trace[0], rtol=1e-6, atol=1e-8)
        assert torch.equal(found.indices[q], expected.indices[0] + 3)


def test_every_query_has_its_own_level_and_none_sees_the_others(emulated: Any) -> None:
    rows = stored(64, 48, torch.uint8)
    engine = CudaEngine(rows, emulated.core)
    levels = torch.tensor([1e-3, 0.1, 1.0, 5.0, 50.0, 1000.0, 2.0], dtype=torch.float64)
    x = torch.cat([queries(rows, 1, float(level)) for level in levels])
    together = answer(engine, x, levels)
    check(together, x, rows, levels)
    for q in range(len(x)):
        alone = answer(engine, x[q : q + 1], levels[q : q + 1])
        torch.testing.assert_close(alone.mean[0], together.mean[q], rtol=1e-12, atol=1e-12)


def test_more_queries_than_one_round_takes(emulated: Any) -> None:
    rows = stored(5, 3, torch.uint8)
    engine = CudaEngine(rows, emulated.core)
    x = queries(rows, 67, 1.0)
    check(answer(engine, x, 1.0), x, rows, 1.0)


def test_no_queries(emulated: Any) -> None:
    engine = CudaEngine(stored(5, 3, torch.uint8), emulated.core)
    found = answer(engine, torch.empty(0, 3), torch.empty(0), topk=2)
    assert found.mean.shape == (0, 3)
    assert found.indices.shape == (0, 2)
    assert engine.weighted_mean(torch.empty(0, 5), 1e-5).shape == (0, 3)
    assert engine.inner_products(torch.empty(0, 3)).shape == (0, 5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_parts_by_themselves(emulated: Any, dtype: torch.dtype) -> None:
    rows = stored(130, 50, dtype)
    engine = CudaEngine(rows, emulated.core)
    points = reference.model_space(rows, torch.float64)
    x = torch.randn(3, 50, dtype=torch.float64)
    torch.testing.assert_close(engine.inner_products(x), x @ points.T, rtol=1e-12, atol=1e-12)
    logits = 3 * torch.randn(3, 130, dtype=torch.float64)
    logits[:, ::3] = -torch.inf
    torch.testing.assert_close(engine.weighted_mean(logits, 1e-5), logits.softmax(1) @ points, rtol=1e-12, atol=1e-12)
    candidates = torch.randint(-1, 130, (3, 11))
    candidates[0, 0] = -1
    expected = (x[:, None] - points[candidates.clamp_min(0)]).square().sum(2)
    expected[candidates < 0] = torch.inf
    torch.testing.assert_close(engine.squared_distances(x, candidates), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_refine_looks_at_the_list_only(emulated: Any, dtype: torch.dtype) -> None:
    rows = stored(60, 50, dtype)
    engine = CudaEngine(rows, emulated.core)
    x = queries(rows, 2, 3.0)
    candidates = torch.full((2, 35), -1)
    candidates[0, 3:38:2] = torch.arange(16)
    candidates[1, :34] = torch.arange(20, 54)
    query = engine._placed(Query(x, torch.full((2,), 3.0), range(60)))
    found = engine._answer(query, candidates)
    for q, listed in enumerate((range(16), range(20, 54))):
        expected = reference.posterior(x[q : q + 1], rows[list(listed)], 3.0)
        torch.testing.assert_close(found.mean[q], expected.mean[0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found.ess[q], expected.ess[0])


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("count", range(5))
def test_a_step_taken_with_the_evaluation(emulated: Any, count: int, single: bool) -> None:
    rows = stored(40, 19, torch.uint8)
    engine = CudaEngine(rows, emulated.core)
    real = torch.float32 if single else torch.float64
    x, levels = queries(rows, 3, 1.0).to(real), torch.ones(3, dtype=torch.float64)
    terms = [(1 / (3 - 2 * k), torch.randn(3, 19, dtype=real)) for k in range(count)]
    expected = -0.7 * engine.posterior(Query(x, levels, range(40))).mean
    expected += sum(factor * values.double() for factor, values in terms)
    start, out = x.clone(), torch.full((3, 19), torch.nan, dtype=real)
    for place in (out, x, *(values for _, values in terms[:1])):
        kept = [(factor, values.clone() if values is not place else place) for factor, values in terms]
        engine.combine(Query(start, levels, range(40)), Combination(-0.7, kept, place))
        torch.testing.assert_close(place, expected.to(real), rtol=4 * torch.finfo(real).eps, atol=1e-15)
    engine.combine(Query(x[:0], levels[:0], range(40)), Combination(1.0, [], x[:0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_values_at_the_ends_of_a_dtype(emulated: Any, dtype: torch.dtype) -> None:
    info = torch.finfo(dtype)
    small = info.smallest_normal if dtype == torch.bfloat16 else info.smallest_normal / 4  # subnormal where kept
    rows = torch.tensor([[small, -1.0], [-small, 2.0], [0.0, -0.0], [60000.0, 3.0]], dtype=dtype)
    engine = CudaEngine(rows, emulated.core)
    one = torch.eye(4).log()  # all weight on one row
    torch.testing.assert_close(engine.weighted_mean(one, 1e-5), rows.double(), rtol=0, atol=0)


def test_bad_rows_are_named(emulated: Any) -> None:
    rows = stored(40, 3, torch.float32)
    rows[11, 1] = torch.nan
    with pytest.raises(
        ValueError, match=r"^data: expected finite values, found NaN or Inf in data\[11\]; allowed none"
    ):
        CudaEngine(rows, emulated.core)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("augment", [None, "hflip"])
def test_a_whole_denoiser_over_this_engine(
    emulated: Any, dtype: torch.dtype, augment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Classes, masks, priors, mirror images, derivatives and draws, as over the reference."""
    data = stored(50, 24, dtype).unflatten(1, (2, 3, 4))
    options = {"labels": torch.arange(50) % 3, "log_weights": torch.randn(50), "augment": augment}
    plain = OptimalDenoiser(data, backend="reference", **options)
    monkeypatch.setattr(selection, "open_engine", lambda _, rows, file: CudaEngine(rows, emulated.core))
    denoiser = OptimalDenoiser(data, **options)
    assert isinstance(denoiser._points.engines.serving(), CudaEngine)
    x = queries(data.flatten(1), 4, 1.0).unflatten(1, (2, 3, 4))
    sigma = torch.tensor([0.1, 0.5, 1.0, 3.0], dtype=torch.float64)
    classes, mask = torch.tensor([2, 0, 2, 1]), torch.rand(4, 50) < 0.7
    for conditions in ({}, {"class_labels": classes}, {"mask": mask}, {"class_labels": classes, "mask": mask}):
        found, expected = (one.posterior(x, sigma, topk=2, **conditions) for one in (denoiser, plain))
        for name in ("mean", "log_prob", "entropy", "ess", "trace", "weights"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-6, msg=name)
        assert found.indices.equal(expected.indices)
        draws = [p.sample(20, generator=torch.Generator().manual_seed(0)) for p in (found, expected)]
        assert draws[0].equal(draws[1])
        slopes = []
        for one in (denoiser, plain):
            at = x.clone().requires_grad_()
            (
                one.log_prob(at, sigma, **conditions) + one(at, sigma, **conditions).square().sum((1, 2, 3))
            ).sum().backward()
            slopes.append(at.grad)
        torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-6)


def test_whether_the_one_pass_serves_a_call_is_known_beforehand(emulated: Any) -> None:
    for clusters, shared, dtype, d, expected in (
        (True, 232448, 0, 12_288, True),
        (True, 232448, 0, 40_000, False),
        (False, 166912, 0, 2_000, True),
        (False, 166912, 0, 3_072, False),
        (True, 232448, 3, 32, False),
    ):
        emulated.emulator.set_machine(2, shared, clusters)
        for batch in (0, 4):
            assert emulated.core.streams(device=0, dtype=dtype, d=d, batch=batch) == expected


H100, A100 = (132, 232448, True), (108, 166912, False)


@pytest.mark.parametrize("machine", [H100, A100])
@pytest.mark.parametrize("d", [1, 784, 3072, 12288, 200_000])
@pytest.mark.parametrize("batch", [1, 4, 5, 64, 1000])
def test_plans_stay_within_the_machine(emulated: Any, machine: tuple[int, int, bool], d: int, batch: int) -> None:
    plan = emulated.core.plan(emulated.core.Machine(*machine), dtype=0, shape=(50_000, d), batch=batch)
    assert plan.cluster * plan.slice >= d or not plan.streams
    assert plan.cluster in ((1, 2, 4, 8) if machine[2] else (1,))
    assert plan.slice % 32 == 0
    assert plan.streams == (d <= 12288 if machine[2] else d < 3072)
    assert 1 <= plan.parts <= 1563
    assert plan.workspace <= 4 * min(batch, 64) * d * 8 + (80 << 20)
