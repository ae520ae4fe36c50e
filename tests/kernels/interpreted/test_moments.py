"""Covariances and draws of the Triton engine against the float64 reference, and rows that a query does not see."""

import pytest
import torch

from geodiff import reference
from geodiff.backends import Query
from geodiff.backends import triton as engine_module
from geodiff.backends.query import Direction
from geodiff.backends.triton import PATHS, TritonEngine
from geodiff.kernels import drawn as drawn_module
from geodiff.kernels import evaluate as evaluate_module
from geodiff.reference import moments
from tests import engine_moments
from tests.engine_moments import BATCH, KINDS, TOL, asked, check_covariance, check_draws, check_posterior, some_data
from tests.kernels.interpreted.counting import counted
from tests.kernels.interpreted.paths import send_to

# The interpreter takes seconds for each.
CASES = [(torch.uint8, 0.3, kind) for kind in KINDS]
CASES += [(torch.uint8, 1e-3, "all"), (torch.uint8, 1e-3, "both"), (torch.uint8, 4.0, "some rows")]
CASES += [(torch.float16, 1.0, "exclude"), (torch.bfloat16, 1.0, "prior"), (torch.float32, 80.0, "all")]


@pytest.mark.parametrize(("stored", "sigma", "kind"), CASES, ids=str)
def test_covariances_and_draws(stored: torch.dtype, sigma: float, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn_module, "_LOT", 32)
    data = some_data(stored)
    engine, query = TritonEngine(data), asked(data, sigma, kind)
    check_covariance(engine, query, data)
    check_draws(engine, query, data)


def test_nothing_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    data = some_data(torch.uint8)
    engine, query = TritonEngine(data), asked(data, 0.3, "both")
    numbers = torch.rand(BATCH, data.shape[1], dtype=torch.float64)
    with counted(monkeypatch) as count:
        engine.covariance(query, Direction(numbers, numbers, numbers[:, 0]))
        engine.draw(query, numbers)
    assert not count.waits


def test_more_queries_than_a_pass_takes_and_more_rows_than_a_chunk_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_NUMBERS", 1)  # eight queries
    monkeypatch.setattr(evaluate_module, "_BYTES", 1)  # one split
    data = torch.randint(0, 256, (1030, 3), dtype=torch.uint8)
    exclude = torch.arange(1030 - 9, 1030)
    x, sigma = reference.model_space(data[exclude], torch.float64), 0.02
    query = Query(x, torch.full((9,), sigma, dtype=torch.float64), range(1030), tol=TOL, exclude=exclude)
    mean = reference.posterior(x, data, sigma, exclude=exclude).mean
    v, slope, uniform = torch.randn(9, 3).double(), torch.zeros(9).double(), torch.rand(9, 2, dtype=torch.float64)
    engine = TritonEngine(data)
    torch.testing.assert_close(engine.posterior(query).mean, mean, rtol=TOL, atol=TOL)
    rows, far = engine.covariance(query, Direction(mean, v, slope))
    expected, expected_far = moments.covariance(x, data, sigma, moments.Along(v, slope), exclude=exclude)
    torch.testing.assert_close(rows, expected, rtol=1e-7, atol=1e-10)
    torch.testing.assert_close(far, expected_far, rtol=1e-7, atol=1e-9)
    assert torch.equal(engine.draw(query, uniform), moments.draw(x, data, sigma, uniform, exclude=exclude))


@pytest.mark.parametrize("path", PATHS)
def test_what_is_excluded_takes_no_part(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sigma = send_to(path, monkeypatch)
    data = some_data(torch.uint8)
    for kind in ("exclude", "both") if path == "dense" else ("both",):
        engine = TritonEngine(data)
        check_posterior(engine, asked(data, sigma, kind), data, engine_moments.N)
        assert PATHS.index(path) in engine.last_paths.tolist()
