"""Each kernel against its plain-torch twin: all dtypes, sizes that divide no tile, outputs that start as NaN."""

import math
from typing import Any

import pytest
import torch
import triton
from torch import Tensor

from geodiff.kernels import configs, twins, weighted_sum
from geodiff.kernels import logits as logits_module
from geodiff.kernels.asked import Chunk
from geodiff.kernels.combine import MOST_TERMS, combine
from geodiff.kernels.logits import logits, logits_bytes, logits_floats
from geodiff.kernels.merge import Running
from geodiff.kernels.prepared import Prepared
from geodiff.kernels.queries import BASE_ERROR, INV, RESIDUAL, ROW_ERROR, SCALE, Queries, prepare
from geodiff.kernels.refine import all_distances, all_products, full_sum, pair_distances
from geodiff.kernels.seen import Seen
from geodiff.kernels.weighted_sum import SPLIT, WORD, Marks, Sums, softmax

NAN = torch.nan


def some_rows(n: int, d: int, dtype: torch.dtype) -> Tensor:
    if dtype == torch.uint8:
        rows = torch.randint(0, 256, (n, d), dtype=torch.uint8)
        rows[0, 0], rows[-1, -1] = 0, 255
        return rows
    return torch.randn(n, d).to(dtype)


def ready(data: Prepared, x: Tensor, sigma: float = 1.0, *, tol: float = 1e-5, dithered: bool = True) -> Queries:
    """Queries x [B, d] in centred units, with sigma in model space."""
    model = (x + data.shift) / data.unit
    return prepare(data, model, x.new_full((len(x),), sigma), n=len(data.rows), tol=tol, dithered=dithered)


def value(query: Queries) -> Tensor:
    """What the parts stand for, [B, d] float64."""
    count = len(query.parts)
    weights = [256.0 ** (count - 1 - k) if query.parts.dtype == torch.int8 else 1.0 for k in range(count)]
    return query.numbers[SCALE, :, None] * sum(w * part.double() for w, part in zip(weights, query.parts, strict=True))


def worst_ratio(found: Tensor, expected: Tensor, allowed: Tensor) -> float:
    """Of the entries where `allowed` is finite; infinite if one of them is NaN."""
    ratio = (found.double() - expected).abs() / allowed
    return float(ratio[allowed.isfinite()].nan_to_num(nan=torch.inf).amax()) if allowed.isfinite().any() else 0.0


@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize("dithered", [False, True])
def test_digits_stand_for_the_query_and_know_what_they_left_over(count: int, dithered: bool) -> None:
    data = Prepared(some_rows(40, 33, torch.uint8))
    size = torch.tensor([1e-9, 1.0, 80.0, 1e4, 1.0], dtype=torch.float64)
    x = torch.randn(5, 33, dtype=torch.float64) * size[:, None]
    x[4] = 0
    query = ready(data, x, 10.0, tol=1.0 if count == 3 else 0.0, dithered=dithered)
    torch.testing.assert_close(query.centred, x, rtol=1e-12, atol=1e-12)
    assert query.parts.dtype == torch.int8
    assert query.digits.tolist() == [count] * 5
    assert count == 4 or not query.parts[0].any()
    left = (x - value(query)).norm(dim=1)
    torch.testing.assert_close(query.numbers[RESIDUAL], left, rtol=1e-3, atol=1e-12)
    unit = x.abs().amax(1) / (127 * 256 ** (count - 1))
    assert (left <= unit * 33**0.5 * (1 if dithered else 0.5) + 1e-13).all()


def test_few_digits_where_the_noise_hides_more() -> None:
    data = Prepared(some_rows(400, 33, torch.uint8))
    x = torch.randn(1, 33, dtype=torch.float64)
    assert [int(ready(data, x * 127.5 * sigma, sigma).digits[0]) for sigma in (0.1, 1.0, 1e3)] == [4, 4, 3]


def test_dithered_digits_err_to_neither_side() -> None:
    data = Prepared(some_rows(2, 4000, torch.uint8))
    x = torch.rand(1, 4000, dtype=torch.float64) + 0.5
    query = ready(data, x, tol=1.0)
    error = (value(query) - x) / query.numbers[SCALE]
    assert abs(float(error.mean())) < 5 * (1 / 6 / 4000) ** 0.5
    assert float(error.std()) == pytest.approx(6**-0.5, rel=0.05)


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float16, 30), (torch.bfloat16, 23), (torch.float32, 23)])
def test_three_floats_hold_the_bits_of_the_query(dtype: torch.dtype, bits: int) -> None:
    data = Prepared(some_rows(5, 65, dtype))
    x = torch.randn(4, 65, dtype=torch.float64) * torch.tensor([1e-12, 1.0, 3e3, 1e12], dtype=torch.float64)[:, None]
    query = ready(data, x)
    assert ((x - value(query)).abs() <= x.abs().amax(1, keepdim=True) * 2.0**-bits).all()
    torch.testing.assert_close(query.numbers[RESIDUAL], (x - value(query)).norm(dim=1), rtol=1e-3, atol=1e-30)


@pytest.mark.parametrize(("n", "d", "batch"), [(1, 1, 1), (127, 65, 3), (129, 129, 17), (130, 128, 33)])
def test_logits(n: int, d: int, batch: int, stored: torch.dtype) -> None:
    data = Prepared(some_rows(n, d, stored))
    x = torch.randn(batch, d, dtype=torch.float64) * 100
    each = torch.randn(batch, n + 3, dtype=torch.float64)[:, 2:-1]  # a part of longer rows
    each[-1, n // 2] = -torch.inf
    exclude = torch.randint(-1, n, (batch,)) + 5
    exclude[0] = -1
    one = torch.randn(n, dtype=torch.float64)
    for seen in (Seen(), Seen(one), Seen(each), Seen(None, exclude, 5), Seen(each, exclude, 5)):
        query = ready(data, x, 0.1)
        inv, row, base = (query.numbers[place] for place in (INV, ROW_ERROR, BASE_ERROR))
        out = torch.full((batch, n), NAN, dtype=torch.float64)
        logits(query, data.rows, data.half, seen, inv, out)
        known = value(query)
        expected = twins.logits(known, data.rows, data.half, seen, inv)
        shut = expected.isneginf()
        assert out.isneginf().equal(shut)
        assert query.best.equal(out.amax(1))
        allowed = (base[:, None] + 1e-12).masked_fill(shut, torch.inf)
        assert worst_ratio(out, expected, allowed) <= 1
        # And with what the digits left over, up to what is common to all rows of a query.
        shift = ((x - known) @ data.mean) * inv
        exact = twins.logits(x, data.rows, data.half, seen, inv) - shift[:, None]
        allowed = (row[:, None] * data.away + base[:, None] + 1e-12).masked_fill(shut, torch.inf)
        assert worst_ratio(out, exact, allowed) <= 1


@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize("long", [False, True])
def test_digits_of_every_number_and_length(count: int, long: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logits_module, "INT32_COLUMNS", 1 if long else 65536)
    data, x = Prepared(some_rows(9, 131, torch.uint8)), torch.randn(2, 131, dtype=torch.float64)
    query, ones = ready(data, x, tol=1.0 if count == 3 else 0.0), torch.ones(2).double()
    assert query.digits.tolist() == [count] * 2
    out = torch.full((2, 9), NAN, dtype=torch.float64)
    zeros = torch.zeros(9).double()
    logits(query, data.rows, zeros, Seen(), ones, out)
    torch.testing.assert_close(out, value(query) @ twins.centred(data.rows).T, rtol=1e-13, atol=1e-9)


def test_a_query_with_fewer_digits_beside_one_with_more() -> None:
    data, x = Prepared(some_rows(9, 70, torch.uint8)), torch.randn(2, 70, dtype=torch.float64) * 1e4
    sigma, ones = torch.tensor([1e3, 1.0], dtype=torch.float64), torch.ones(2).double()
    query = prepare(data, (x + data.shift) / data.unit, sigma, n=9, tol=1e-5)
    assert query.digits.tolist() == [3, 4]
    out, zeros = torch.full((2, 9), NAN, dtype=torch.float64), torch.zeros(9).double()
    logits(query, data.rows, zeros, Seen(), ones, out)
    torch.testing.assert_close(out, value(query) @ twins.centred(data.rows).T, rtol=1e-13, atol=1e-5)


def test_every_table_has_a_configuration_for_every_batch_and_chip() -> None:
    for table in (configs.LOGITS_BYTES, configs.LOGITS_FLOATS, *configs.WEIGHTED_SUM.values()):
        for batch in (1, configs.NARROW, configs.NARROW + 1, 256):
            narrow = batch <= configs.NARROW
            ampere, hopper = (configs.fitting(table, batch, capability) for capability in (80, 90))
            assert ampere
            assert set(map(id, ampere)) <= set(map(id, hopper))
            assert configs.fitting(table, batch, 90, bias=2)
            assert all((config.kwargs["BB"] <= configs.NARROW) == narrow for config in hopper)
            assert configs.configured(table)(None).chosen(batch, 0) is ampere[-1], "the interpreter is an old chip"
    assert all(config.kwargs["BD"] == configs.FLUSH for config in configs.LOGITS_FLOATS)


CONFIGS = [(table, config) for table in ("bytes", "floats") for config in vars(configs)[f"LOGITS_{table.upper()}"]]


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize(("table", "config"), CONFIGS, ids=lambda value: str(value).replace(" ", ""))
def test_logits_in_every_configuration(table: str, config: triton.Config, even: bool) -> None:
    tiles = config.kwargs
    n, d, batch = tiles["BN"] + 1, 2 * tiles["BD"] + (not even), tiles["BB"] + 1
    stored = torch.uint8 if table == "bytes" else torch.float32
    data, x = Prepared(some_rows(n, d, stored)), torch.randn(batch, d, dtype=torch.float64)
    query = ready(data, x)
    rows, zero, one = data.rows, torch.zeros(n).double(), torch.ones(batch).double()
    out = torch.full((batch, n + 3), NAN, dtype=torch.float64)
    grid = triton.cdiv(batch, tiles["BB"]), triton.cdiv(n, tiles["BN"])
    ends = query.best, out, batch, n, d, batch * d, n + 3, 0, 0
    starts = query.parts, rows, zero, zero, zero, query.numbers[SCALE], one
    if table == "bytes":
        logits_bytes[grid](*starts, query.digits, *ends, LONG=False, BIAS=0, EXCLUDE=False, **tiles)
    else:
        logits_floats[grid](*starts, *ends, BIAS=0, EXCLUDE=False, **tiles)
    expected = value(query) @ twins.centred(rows).T
    scale = x.norm(dim=1).max() * twins.centred(rows).norm(dim=1).max()
    assert float((out[:, :n] - expected).abs().max() / scale) < (1e-14 if table == "bytes" else 2e-6)
    assert out[:, n:].isnan().all()


def exact_queries(data: Prepared, scores: Tensor) -> Queries:
    """As for logits without an error, of which nothing has been seen."""
    queries = ready(data, torch.zeros(len(scores), data.rows.shape[1], dtype=torch.float64))
    queries.numbers[[ROW_ERROR, BASE_ERROR]] = 0
    return queries


def merged(scores: Tensor, data: Prepared, chunk: int, cut: float, bias: Tensor | None = None) -> Running:
    """Of float64 scores, by weighted sums that leave no query out."""
    batch, n = scores.shape
    queries, marks = exact_queries(data, scores), Marks.empty(batch, n, scores.device)
    running = Running(data, queries, torch.full((batch, data.rows.shape[1]), NAN, dtype=torch.float64), cut)
    for start in range(0, n, chunk):
        part = slice(start, min(start + chunk, n))
        queries.best.copy_(torch.maximum(queries.best, scores[:, part].amax(1)))
        some = Chunk(part, Seen(bias).part(part))
        running.take(scores[:, part].contiguous(), some, marks.after(start), -1, last=part.stop == n)
    return running


SIZES = [(1, 1, 1), (63, 65, 3), (65, 129, 18), (1023, 1, 2), (1025, 3, 5), (1026, 128, 2)]


@pytest.mark.parametrize(("n", "d", "batch"), SIZES)
def test_weighted_sum_and_merge(n: int, d: int, batch: int, stored: torch.dtype) -> None:
    data = Prepared(some_rows(n, d, stored))
    scores = torch.randn(batch, n, dtype=torch.float64) * 3
    scores[0] *= 100  # one point takes nearly all
    for chunk in (n, SPLIT) if n > SPLIT else (n,):
        running = merged(scores, data, chunk, 1e4)
        expected = (twins.weighted_mean(scores, data.rows) + data.shift) / data.unit
        error = (running.mean - expected).norm(dim=1)
        assert float((error / (data.norm / data.unit)).max()) < 1e-6
        state = twins.softmax_state(scores, data.half)
        torch.testing.assert_close(running.kept[:6], state, rtol=2e-6, atol=1e-5)


def in_parts(weights: Tensor, stored: torch.dtype) -> Tensor:
    """As `softmax_state` writes them, [PARTS, B, S SPLIT]."""
    count, dtype = weighted_sum.PARTS[stored]
    weights = torch.nn.functional.pad(weights, (0, -weights.shape[1] % SPLIT))
    rest, parts = weights.float() * (2**15 if dtype == torch.float16 else 1), []
    for _ in range(count):
        parts.append(rest.to(dtype))
        rest = rest - parts[-1].float()
    return torch.stack(parts)


@pytest.mark.parametrize(("per_group", "even"), [(1, False), (1, True), (2, False), (2, True)])
def test_weighted_sum_in_every_configuration(per_group: int, even: bool, stored: torch.dtype) -> None:
    for config in configs.WEIGHTED_SUM[stored]:
        tiles = config.kwargs
        n, d, batch = (per_group - 1) * SPLIT + configs.STEP + 1, tiles["BD"] + (not even), tiles["BB"] + 1
        data, weights = Prepared(some_rows(n, d, stored)), torch.rand(batch, n, dtype=torch.float64)
        queries = exact_queries(data, weights)
        queries.count.fill_(n)
        out = torch.full((1, batch, d), NAN, dtype=torch.float32 if per_group == 1 else torch.float64)
        summed = torch.full((1, batch), -1, dtype=torch.int8)
        grid = triton.cdiv(d, tiles["BD"]), triton.cdiv(batch, tiles["BB"]), 1
        weighted_sum.weighted_sum_kernel[grid](
            in_parts(weights, stored), queries.count.expand(2, -1).T.contiguous(), queries.numbers, queries.count,
            data.rows, out, summed, batch, n, d, batch * per_group * SPLIT, 2, -1, per_group,
            SPLIT=configs.SPLIT, STEP=configs.STEP, SEVERAL=per_group > 1, **tiles,
        )  # fmt: skip
        expected = weights @ twins.centred(data.rows)
        assert float((out[0].double() - expected).norm(dim=1).max() / (data.norm * n)) < 1e-6
        assert summed.eq(1).all()


def test_splits_in_which_no_row_counts_are_not_read_and_others_are(stored: torch.dtype) -> None:
    rows = some_rows(2049, 3, stored)
    data = Prepared(rows)
    scores = torch.randn(2, 2049, dtype=torch.float64)
    scores[:, :1024] -= 500  # the first split counts for neither query, the second for one, the third for both
    scores[0, 1024:2048] -= 500
    if stored != torch.uint8:
        rows[:1024] = NAN  # would show
    running = merged(scores, data, 2049, 100.0)
    expected = (twins.weighted_mean(scores[:, 1024:], rows[1024:]) + data.shift) / data.unit
    assert float((running.mean - expected).norm(dim=1).max() * data.unit / data.norm) < 1e-6


@pytest.mark.parametrize("groups", [1, 2, 5])
def test_groups_of_splits(groups: int, stored: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    n, d, batch = 4100, 3, 2  # five splits
    monkeypatch.setattr(weighted_sum, "_SUMS", groups * batch * d)
    empty = Sums.empty

    def poisoned(*arguments: Any) -> Sums:
        found = empty(*arguments)
        found.sums.fill_(NAN)
        found.summed.fill_(1)
        assert found.sums.shape == (groups, batch, d)
        assert found.sums.dtype == (torch.float32 if groups == 5 else torch.float64)
        return found

    monkeypatch.setattr(Sums, "empty", poisoned)
    rows = some_rows(n, d, stored)
    data = Prepared(rows)
    scores = torch.randn(batch, n, dtype=torch.float64)
    scores[:, :3072] -= 500  # three splits, and the first group of two, count for neither query
    scores[1, 3072:4096] -= 500
    if stored != torch.uint8:
        rows[:3072] = NAN  # would show
    running = merged(scores, data, n, 100.0)
    expected = (twins.weighted_mean(scores[:, 3072:], rows[3072:]) + data.shift) / data.unit
    assert float((running.mean - expected).norm(dim=1).max() * data.unit / data.norm) < 1e-6
    scores = torch.zeros(batch, n, dtype=torch.float64)
    data = Prepared(some_rows(n, d, stored))
    running = merged(scores, data, n, 100.0)
    expected = (twins.weighted_mean(scores, data.rows) + data.shift) / data.unit
    assert float((running.mean - expected).norm(dim=1).max() * data.unit / data.norm) < 1e-7


def test_what_is_skipped_for_one_query_does_not_depend_on_the_others() -> None:
    data = Prepared(some_rows(1025, 3, torch.uint8))
    scores = torch.zeros(2, 1025, dtype=torch.float64)
    scores[0, :1024] = -8  # does not count for the first query alone, though together no small weight
    both = merged(scores, data, 1025, 4.0)
    alone = merged(scores[:1], data, 1025, 4.0)
    assert both.mean[0].equal(alone.mean[0])
    expected = twins.centred(data.rows)[1024] / (1 + 1024 * torch.tensor(-8.0).double().exp())
    torch.testing.assert_close(both.mean[0] * data.unit - data.shift, expected, rtol=1e-6, atol=1e-6)


def test_rows_of_weight_zero_count_for_nothing() -> None:
    data = Prepared(some_rows(1100, 2, torch.float32))
    scores = torch.randn(2, 1100, dtype=torch.float64)
    scores[:, :1030] = -torch.inf  # a whole split, and a part of the next
    for bias in (None, scores[0], scores):
        running = merged(scores, data, 1024, 1e4, bias)
        torch.testing.assert_close(running.mean, twins.weighted_mean(scores, data.rows), rtol=0, atol=1e-6)
        torch.testing.assert_close(running.kept[:6], twins.softmax_state(scores, data.half, bias), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("error", [0.0, 0.7, math.inf])
def test_marks_are_the_rows_that_may_count(error: float) -> None:
    n, batch = 1100, 3
    data = Prepared(some_rows(n, 2, torch.uint8))
    scores = torch.randn(batch, n, dtype=torch.float64) * 4
    scores[1, 17], scores[2, 5] = NAN, -torch.inf
    bias = torch.zeros(n, dtype=torch.float64)
    bias[5] = -torch.inf
    queries, marks = exact_queries(data, scores), Marks.empty(batch, n, scores.device)
    row = error / 200 if math.isfinite(error) else 0.0
    queries.numbers[ROW_ERROR], queries.numbers[BASE_ERROR] = row, error / 2
    queries.best.copy_(scores.nan_to_num(nan=-torch.inf).amax(1))
    softmax(scores, data, Chunk(slice(0, n), Seen(bias)), queries, marks, 5.0)
    least = queries.best - 5 - row * data.radius - error / 2
    expected = ~(scores + row * data.away + error / 2 < least[:, None]) & ~bias.isneginf()
    bits = (marks.bits[:, :, None] >> torch.arange(WORD, dtype=torch.int32)) & 1
    assert bits.flatten(1)[:, :n].bool().equal(expected)
    assert not bits.flatten(1)[:, n:].any()
    assert marks.counts.equal(torch.stack([expected[:, :1024].sum(1), expected[:, 1024:].sum(1)], 1).int())
    assert queries.count.equal(expected.sum(1).int())


@pytest.mark.parametrize(("n", "d", "batch"), [(1, 1, 1), (17, 65, 3), (129, 2, 2)])
def test_difference_form(n: int, d: int, batch: int, stored: torch.dtype) -> None:
    rows, x = some_rows(n, d, stored), torch.randn(batch, d, dtype=torch.float64)
    expected = twins.distances(x, rows)
    torch.testing.assert_close(all_distances(x, rows), expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(all_products(x, rows), x @ twins.centred(rows).T, rtol=1e-12, atol=1e-9)
    q, r = (torch.randint(size, (40,)) for size in (batch, n))
    torch.testing.assert_close(pair_distances(x, rows, q, r), expected[q, r], rtol=1e-13, atol=0)
    weights = torch.rand(batch, n, dtype=torch.float64)
    torch.testing.assert_close(full_sum(weights, rows), weights @ twins.centred(rows), rtol=1e-12, atol=1e-12)


def test_no_pairs_are_no_work() -> None:
    nothing = torch.empty(0, dtype=torch.int64)
    assert pair_distances(torch.randn(1, 2).double(), torch.randn(3, 2), nothing, nothing).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("terms", range(MOST_TERMS + 1))
@pytest.mark.parametrize("shape", [(0, 7), (1, 1), (3, 341), (5, 1025)])
def test_combine(shape: tuple[int, int], terms: int, dtype: torch.dtype) -> None:
    mean, out = torch.randn(shape, dtype=torch.float64), torch.full(shape, NAN, dtype=dtype)
    listed = [(1 / (3 - k), torch.randn(shape, dtype=dtype)) for k in range(terms)]
    expected = twins.combine(mean, -1 / 7, listed)
    combine(mean, -1 / 7, listed, out)
    torch.testing.assert_close(out, expected.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-15)
    for place in range(terms):  # out is one of the terms
        own = [(factor, values.clone()) for factor, values in listed]
        combine(mean, -1 / 7, own, own[place][1])
        assert own[place][1].equal(out)
