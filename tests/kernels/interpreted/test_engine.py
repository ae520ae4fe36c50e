"""The whole Triton engine against the float64 reference: contract 1, path by path."""

import math

import pytest
import torch
from torch import Tensor

from geodiff import OptimalDenoiser, backends, reference
from geodiff.backends import Query
from geodiff.backends import triton as engine_module
from geodiff.backends.triton import PATHS, TritonEngine
from geodiff.base.posterior import Posterior
from geodiff.kernels import decide as decide_module
from geodiff.kernels import evaluate as evaluate_module
from geodiff.kernels import exact as exact_module
from geodiff.kernels import queries as queries_module
from geodiff.kernels import ranking as ranking_module
from geodiff.kernels.given import weighted_mean
from geodiff.reference import moments

TOL = 1e-5
# Where the dtype only changes kernels that other tests run in every dtype.
TWO_DTYPES = pytest.mark.parametrize("stored", [torch.uint8, torch.float32], ids=str)


def some_data(n: int, d: int, stored: torch.dtype) -> Tensor:
    """Points with exact and near-duplicates, as stored."""
    points = torch.rand(n, d) * 1.2 - 0.5
    for twin, of in ((n - 1, 0), (n - 2, 1)):
        if n > 4:
            points[twin] = points[of]
    if n > 4:
        points[n - 2, 0] += 1 / 127.5
    return ((points + 1) * 127.5).round().to(torch.uint8) if stored == torch.uint8 else points.to(stored)


def queries(data: Tensor, batch: int, sigma: float) -> Tensor:
    points = reference.model_space(data, torch.float64)
    x = points[torch.randint(len(data), (batch,))] + sigma * torch.randn(batch, data.shape[1], dtype=torch.float64)
    x[0] = points[-1]  # exactly a point that is there twice
    return x


def assert_contract(found: Posterior, expected: Posterior, data: Tensor, tol: float = TOL) -> None:
    scale = expected.mean.norm(dim=1).clamp_min(0.01 * reference.model_space(data, torch.float64).norm(dim=1).max())
    error = (found.mean - expected.mean).norm(dim=1) / scale
    assert float(error.nan_to_num(nan=torch.inf).max()) <= tol
    allowed = 1e-3 + 1e-6 * expected.log_prob.abs()
    assert ((found.log_prob - expected.log_prob).abs() <= allowed).all()
    torch.testing.assert_close(found.entropy, expected.entropy, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.ess, expected.ess, rtol=1e-3, atol=0)
    assert found.indices.equal(expected.indices)
    torch.testing.assert_close(found.weights, expected.weights, rtol=1e-3, atol=1e-6)


def look_one_by_one_at(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries of which more rows may count go to the dense pass."""
    monkeypatch.setattr(evaluate_module, "most_candidates", lambda n: most)


@pytest.fixture
def dense_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if many rows counted, however few there are."""
    look_one_by_one_at(0, monkeypatch)


@pytest.mark.parametrize(("n", "d"), [(1, 1), (17, 33)])
def test_contract_at_every_noise_level(n: int, d: int, stored: torch.dtype) -> None:
    data = some_data(n, d, stored)
    denoiser = OptimalDenoiser(data, backend="triton")
    for sigma in (1e-3, 0.03, 1.0, 30.0, 1e3):
        x, topk = queries(data, 4, sigma), min(n, 3)
        assert_contract(denoiser.posterior(x, sigma, topk=topk), reference.posterior(x, data, sigma, topk=topk), data)


def test_contract_where_the_dense_pass_goes_first(stored: torch.dtype, dense_first: None) -> None:
    data = some_data(1025, 33, stored)
    engine = TritonEngine(data)
    sigma = torch.tensor([0.05, 0.3, 0.7, 1.5, 5.0, 80.0, 1e3], dtype=torch.float64)
    x = queries(data, 7, 1.0) * sigma[:, None]
    found = engine.posterior(Query(x, sigma, range(1025), None, TOL), 2)
    assert_contract(found, reference.posterior(x, data, sigma, topk=2), data)
    assert set(engine.last_paths[-2:].tolist()) == {PATHS.index("dense")}


@TWO_DTYPES
def test_batches_wider_than_one_tile_and_data_longer_than_one_chunk(
    stored: torch.dtype, dense_first: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_module, "_BYTES", 1)  # so that a chunk is one split
    monkeypatch.setattr(engine_module, "_QUERIES", 18)
    data = some_data(2100, 3, stored)
    engine = TritonEngine(data)
    x, sigma = queries(data, 19, 2.0), torch.full((19,), 2.0, dtype=torch.float64)
    found = engine.posterior(Query(x, sigma, range(2100), None, TOL))
    assert_contract(found, reference.posterior(x, data, 2.0), data)
    assert {PATHS.index("dense"), PATHS.index("dense_fine")} & set(engine.last_paths.tolist())


@TWO_DTYPES
def test_what_has_too_many_candidates_is_summed_up_over_everything(
    stored: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_one_by_one_at(20, monkeypatch)
    data = some_data(130, 17, stored)
    engine = TritonEngine(data)
    sigma = torch.tensor([0.01, 0.01, 9.0, 9.0], dtype=torch.float64)
    x = queries(data, 4, 1.0) * sigma[:, None]
    found = engine.posterior(Query(x, sigma, range(130), None, TOL), 1)
    assert_contract(found, reference.posterior(x, data, sigma, topk=1), data)
    assert engine.last_paths[:2].tolist() == [0, 0]
    assert not (engine.last_paths[2:] == 0).any()


@TWO_DTYPES
@pytest.mark.parametrize("turned", [False, True])
def test_candidates_over_several_chunks(turned: bool, monkeypatch: pytest.MonkeyPatch, stored: torch.dtype) -> None:
    monkeypatch.setattr(evaluate_module, "_BYTES", 1)
    monkeypatch.setattr(ranking_module, "_ELEMENTS", 1024)
    look_one_by_one_at(200, monkeypatch)
    data = some_data(2300, 5, stored)
    # By distance from the queries: the first chunk has all that counts, or the last one.
    order = reference.model_space(data, torch.float64).norm(dim=1).argsort(descending=turned)
    data = data[order].contiguous()
    engine = TritonEngine(data)
    sigma = torch.tensor([1e-3, 0.02, 0.3, 1.0], dtype=torch.float64)
    x = reference.model_space(data, torch.float64)[-4:] if turned else torch.zeros(4, 5, dtype=torch.float64)
    x = x + 0.01 * torch.randn(4, 5, dtype=torch.float64)
    for topk in (0, 7):
        found = engine.posterior(Query(x, sigma, range(2300), None, TOL), topk)
        assert_contract(found, reference.posterior(x, data, sigma, topk=topk), data)
    assert engine.last_paths[:2].tolist() == [0, 0]
    assert not (engine.last_paths[2:] == 0).any()


def test_rows_left_out_of_a_weighted_sum_that_counted_after_all(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of the first chunk a tenth as many rows count as may be looked at one by one, of the second nearly all.
    monkeypatch.setattr(evaluate_module, "_BYTES", 1)
    look_one_by_one_at(400, monkeypatch)
    data = torch.full((2048, 6), 128, dtype=torch.uint8)
    data[:1014, 0] = 255  # too far to count
    data[1014:, 1:] += torch.randint(0, 3, (1034, 5), dtype=torch.uint8)
    engine = TritonEngine(data)
    sigma = torch.full((2,), 0.02, dtype=torch.float64)
    x = torch.zeros(2, 6, dtype=torch.float64) + 0.02
    found = engine.posterior(Query(x, sigma, range(2048), None, TOL))
    assert_contract(found, reference.posterior(x, data, sigma), data)
    assert engine.last_paths.tolist() == [PATHS.index("exact")] * 2


@TWO_DTYPES
def test_last_resort(stored: torch.dtype, dense_first: None, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_dense(monkeypatch)
    data = some_data(130, 9, stored)
    engine = TritonEngine(data)
    prior = torch.randn(130, dtype=torch.float64).log_softmax(0)
    prior[3] = -torch.inf
    prior -= prior.logsumexp(0)
    sigma = torch.tensor([1e-3, 0.3, 50.0], dtype=torch.float64)
    x = queries(data, 3, 1.0) * sigma[:, None]
    found = engine.posterior(Query(x, sigma, range(130), prior, TOL), 3)
    assert_contract(found, reference.posterior(x, data, sigma, topk=3, log_weights=prior), data)
    assert engine.last_paths.tolist() == [PATHS.index("exact")] * 3


def refuse_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the dense pass never kept the contract."""
    monkeypatch.setattr(decide_module, "LOG_SHARE", -1.0)


def test_prior_and_a_range_of_rows(stored: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    data = some_data(90, 9, stored)
    prior = torch.randn(90, dtype=torch.float64)
    prior[40:50] = -torch.inf
    part = slice(30, 81)
    prior = prior - prior[part].logsumexp(0)
    engine = TritonEngine(data)
    for few in (64, 0):
        look_one_by_one_at(few, monkeypatch)
        sigma = torch.tensor([0.01, 1.0, 20.0], dtype=torch.float64)
        x = queries(data, 3, 1.0) * sigma[:, None]
        found = engine.posterior(Query(x, sigma, range(30, 81), prior, TOL), 4)
        expected = reference.posterior(x, data[part], sigma, topk=4, log_weights=prior[part])
        shifted = Posterior(**{**vars(expected), "indices": expected.indices + 30})
        assert_contract(found, shifted, data)


def own_priors(batch: int, n: int, part: slice) -> Tensor:
    """[B, N], normalised over `part`: dense ones, some with rows left out, and one query that sees a single row."""
    prior = torch.randn(batch, n, dtype=torch.float64)
    prior[1::3, ::2] = -torch.inf
    prior[2, :] = -torch.inf
    prior[2, part.stop - 2] = 5.0
    return prior - prior[:, part].logsumexp(1, keepdim=True)


def expected_each(x: Tensor, data: Tensor, sigma: Tensor, topk: int, prior: Tensor, part: slice) -> Posterior:
    """The reference, one query at a time, over rows `part`."""
    alone = [
        reference.posterior(x[b : b + 1], data[part], sigma[b], topk=topk, log_weights=prior[b, part])
        for b in range(len(x))
    ]
    names = ("mean", "log_prob", "entropy", "ess", "indices", "weights")
    found = Posterior(*(torch.cat([getattr(one, name) for one in alone]) for name in names))
    trace = moments.trace(x, data[part], sigma, log_weights=prior[:, part])
    indices = torch.where(found.indices < 0, -1, found.indices + part.start)
    return Posterior(**{**vars(found), "indices": indices, "trace": trace})


# The heaviest rows are found alike whatever is stored: each path is taken with them and without.
PATHS_OF = [(torch.uint8, path, 3) for path in PATHS] + [
    (torch.float32, path, 0)
    for path in PATHS
    if path != "dense_fine"  # floats have no finer dense pass
]


@pytest.mark.parametrize(("stored", "path", "topk"), PATHS_OF, ids=str)
def test_every_query_may_have_its_own_prior(
    stored: torch.dtype, path: str, topk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_one_by_one_at(2000 if path == "screened" else 0, monkeypatch)
    monkeypatch.setattr(engine_module, "_QUERIES", 8)  # so that the last query has a launch to itself
    monkeypatch.setattr(ranking_module, "_ELEMENTS", 1024)
    if path == "exact":
        refuse_dense(monkeypatch)
    if path == "dense":
        monkeypatch.setattr(queries_module, "DEVIATIONS", 0)  # three digits, where four would be chosen
    n = 1031 if stored == torch.uint8 else 331  # several tiles both; more floats take a minute
    data, part = some_data(n, 17, stored), slice(3, n - 1)
    prior = own_priors(9, n, part)
    sigma = torch.tensor([2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 0.5, 0.5, 5.0], dtype=torch.float64)
    if path == "screened":
        sigma = sigma / 20
    x = queries(data, 9, 1.0) * sigma[:, None]
    engine = TritonEngine(data)
    found = engine.posterior(Query(x, sigma, range(3, n - 1), prior, TOL), topk)
    expected = expected_each(x, data, sigma, topk, prior, part)
    assert_contract(found, expected, data)
    assert found.trace is not None
    assert ((found.trace - expected.trace).abs() <= 1e-4 * expected.trace + 1e-5 * sigma.square()).all()
    assert PATHS.index(path) in engine.last_paths.tolist()
    points = reference.model_space(data, torch.float64)
    torch.testing.assert_close(found.mean[2], points[n - 3], rtol=TOL, atol=TOL)


def test_a_mask_and_classes_of_one_row(stored: torch.dtype) -> None:
    data = some_data(41, 9, stored)
    mask = torch.rand(5, 41) < 0.4
    mask[0] = False
    mask[0, 39] = True
    denoiser, plain = (
        OptimalDenoiser(data, labels=torch.arange(41).clamp(max=3), backend=name) for name in ("triton", "reference")
    )
    x, classes = queries(data, 5, 0.5), torch.tensor([3, 0, 1, 3, 2])
    seen = mask | torch.nn.functional.one_hot(classes.clamp(max=2), 41).bool()
    for arguments in ({"mask": mask}, {"class_labels": classes}, {"class_labels": classes, "mask": seen}):
        found, expected = (one.posterior(x, 0.5, topk=1, **arguments) for one in (denoiser, plain))
        assert_contract(found, expected, data)
        torch.testing.assert_close(found.trace, expected.trace, rtol=1e-3, atol=1e-5)


def test_all_points_can_be_ranked() -> None:
    data = some_data(33, 4, torch.float32)
    denoiser = OptimalDenoiser(data, backend="triton")
    x = queries(data, 2, 0.3)
    found = denoiser.posterior(x, 0.3, topk=33)
    assert found.indices.equal(reference.posterior(x, data, 0.3, topk=33).indices)


def test_too_coarse_a_pass_knows_that_it_is(dense_first: None, monkeypatch: pytest.MonkeyPatch) -> None:
    data = some_data(257, 33, torch.uint8)
    sigma = torch.logspace(-1, 3, 12, dtype=torch.float64)
    x = queries(data, 12, 1.0) * sigma[:, None]
    expected = reference.posterior(x, data, sigma)
    scale = expected.mean.norm(dim=1).clamp_min(0.01 * reference.model_space(data, torch.float64).norm(dim=1).max())
    monkeypatch.setattr(exact_module, "EXACT", -2)  # so that what is refused shows
    for least, tol in ((1, 1e-5), (2, 1e-5), (3, 1e-5), (1, 1e-2)):
        engine = TritonEngine(data)
        monkeypatch.setattr(queries_module, "LEAST_DIGITS", least)
        monkeypatch.setattr(queries_module, "DEVIATIONS", 0)  # fewer digits than would be chosen
        found = engine.posterior(Query(x, sigma, range(257), None, tol))
        done = engine.last_paths != PATHS.index("exact")
        error = (found.mean - expected.mean).norm(dim=1) / scale
        assert (error[done] <= tol).all()
        assert done.any() if least == 3 or tol == 1e-2 else not done.all()
        if least == 1:
            assert (error > 1e-5).any()  # the bound had something to refuse


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1e3, 1e17, 1e25])
def test_float32_data_of_any_size(size: float, dense_first: None) -> None:
    data = (torch.randn(40, 5) * size).float()
    engine = TritonEngine(data)
    x, sigma = data[:2].double() * 1.1, (torch.tensor([0.5, 5.0], dtype=torch.float64) * size).clamp(1e-12, 1e12)
    found = engine.posterior(Query(x, sigma, range(40), None, TOL))
    expected = reference.posterior(x, data, sigma)
    error = (found.mean - expected.mean).norm(dim=1)
    assert (error <= TOL * expected.mean.norm(dim=1).clamp_min(0.01 * data.double().norm(dim=1).max())).all()


def test_same_input_same_bits_and_other_queries_do_not_matter(dense_first: None) -> None:
    data = some_data(130, 17, torch.uint8)
    denoiser = OptimalDenoiser(data, backend="triton")
    x = queries(data, 5, 2.0)
    first, again, alone = denoiser(x, 2.0), denoiser(x, 2.0), denoiser(x[2:3], 2.0)
    assert first.equal(again)
    torch.testing.assert_close(alone[0], first[2], rtol=1e-6, atol=1e-6)
    assert denoiser(x[:0], 2.0).shape == (0, 17)


def test_inner_products_and_distances(stored: torch.dtype) -> None:
    data = some_data(70, 17, stored)
    engine = TritonEngine(data)
    points = reference.model_space(data, torch.float64)
    x = 30 * torch.randn(3, 17, dtype=torch.float64)
    torch.testing.assert_close(engine.mean, points.mean(0), rtol=1e-12, atol=1e-12)
    allowed = 1e-8 * x.norm(dim=1)[:, None] * points.norm(dim=1)
    assert ((engine.inner_products(x) - x @ points.T).abs() <= allowed).all()
    candidates = torch.tensor([[5, -1], [0, 69], [69, 3]])
    expected = (x[:, None] - points[candidates]).square().sum(2).masked_fill(candidates < 0, torch.inf)
    torch.testing.assert_close(engine.squared_distances(x, candidates), expected, rtol=1e-12, atol=0)
    assert engine.inner_products(x[:0]).shape == (0, 70)
    assert engine.squared_distances(x, candidates[:, :0]).shape == (3, 0)


def test_weighted_mean_of_given_logits(stored: torch.dtype) -> None:
    data = some_data(1100, 5, stored)
    data[:, 1:] = data[:1, 1:] if stored == torch.uint8 else 0
    points = reference.model_space(data, torch.float64)
    scores = torch.randn(5, 1100, dtype=torch.float64)
    scores[1] *= 300
    scores[2, ::3] = -torch.inf
    scores[3] += 1e9
    scores[4] = 0
    expected = scores.softmax(1) @ points
    found = TritonEngine(data).weighted_mean(scores, TOL)
    scale = expected.norm(dim=1).clamp_min(0.01 * points.norm(dim=1).max())
    assert ((found - expected).norm(dim=1) <= TOL * scale).all()
    assert TritonEngine(data).weighted_mean(scores[:0], TOL).shape == (0, 5)


def test_weighted_mean_near_zero_is_summed_in_float64(stored: torch.dtype) -> None:
    points = torch.randn(64, 9, dtype=torch.float64)
    points = torch.cat([points, -points]) / 4
    data = ((points + 1) * 127.5).round().clamp(0, 255).to(torch.uint8) if stored == torch.uint8 else points.to(stored)
    scores = torch.zeros(2, 128, dtype=torch.float64)
    exact = reference.model_space(data, torch.float64)
    engine = TritonEngine(data)
    assert not weighted_mean(engine._data, scores, TOL, scores.new_empty(2, 9)).any()
    error = (engine.weighted_mean(scores, TOL) - exact.mean(0)).norm(dim=1)
    assert (error <= TOL * exact.mean(0).norm().clamp_min(0.01 * exact.norm(dim=1).max())).all()


def test_errors_name_what_is_wrong() -> None:
    data = torch.zeros(3, 2)
    data[1, 1] = math.nan
    with pytest.raises(ValueError, match=r"data.*nan in row 1"):
        TritonEngine(data)
    with pytest.raises(ValueError, match=r"triton.*meta"):
        TritonEngine(torch.zeros(3, 2, device="meta"))


def test_backend_is_listed_and_chosen() -> None:
    assert backends.available()["triton"].startswith("triton 3")
    assert OptimalDenoiser(torch.zeros(3, 2), backend="triton").backend == "triton"
    assert OptimalDenoiser(torch.zeros(3, 2)).backend != "triton"


@TWO_DTYPES
@pytest.mark.parametrize("count", [0, 2, 4])
def test_a_step_taken_with_the_evaluation(stored: torch.dtype, count: int) -> None:
    data = some_data(60, 21, stored)
    denoiser = OptimalDenoiser(data, backend="triton")
    x = queries(data, 3, 1.0)
    terms = [(0.5 + k, torch.randn(3, 21, dtype=torch.float64)) for k in range(count)]
    expected = -2 * reference.posterior(x, data, 1.0).mean + sum(factor * values for factor, values in terms)
    for out in (torch.full_like(x, torch.nan), x):
        assert (denoiser.combine(x, 1.0, -2.0, terms, out=out) - expected).norm(dim=1).max() <= 2 * TOL * 5
