"""Covariances and draws of the emulated GPU core against the float64 reference, and rows that a query does not see."""

from typing import Any

import pytest
import torch

from geodiff.backends import cuda as engine_module
from geodiff.backends.cuda import CudaEngine
from tests.cuda.asking import DENSE, EXACT, queries, stored
from tests.engine_moments import KINDS, Query, asked, check_covariance, check_draws, check_posterior, some_data


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sigma", [1e-3, 0.3, 4.0])
def test_covariances_and_draws(emulated: Any, sigma: float, kind: str) -> None:
    data = some_data(torch.uint8)
    engine, query = CudaEngine(data, emulated.core), asked(data, sigma, kind)
    check_covariance(engine, query, data)
    check_draws(engine, query, data)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_float_rows(emulated: Any, dtype: torch.dtype) -> None:
    data = some_data(dtype)
    engine = CudaEngine(data, emulated.core)
    for sigma, kind in ((1.0, "both"), (80.0, "all")):
        query = asked(data, sigma, kind)
        check_posterior(engine, query, data, 4)
        check_covariance(engine, query, data)
        check_draws(engine, query, data)


def test_many_queries_in_several_parts_over_several_lots(emulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_QUERIES", 3)
    rows = stored(600, 33, torch.uint8)
    engine = CudaEngine(rows, emulated.core)
    levels = torch.tensor([0.01, 0.5, 3.0, 6.0, 9.0, 30.0, 0.2], dtype=torch.float64)
    exclude = torch.tensor([-1, 599, 0, 300, -1, 256, 255])
    query = Query(queries(rows, 7, 1.0), levels, range(600), exclude=exclude)
    check_covariance(engine, query, rows)
    check_draws(engine, query, rows)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("kind", ["exclude", "both", "some rows"])
def test_what_is_excluded_takes_no_part(emulated: Any, dense: bool, kind: str) -> None:
    """By the streaming pass or the dense one, and where they leave it to float64."""
    emulated.emulator.set_dense(dense)
    data = torch.cat([some_data(torch.uint8), torch.zeros(150, 7, dtype=torch.uint8)], 1)  # rows of 16
    data[1, 0] ^= 1  # no two alike but for the first and the last
    engine = CudaEngine(data, emulated.core)
    assert engine._data.plan(rows=150, batch=3).dense == dense
    for sigma in (1e-6, 0.3, 4.0):
        query = asked_of(data, sigma, kind)
        check_posterior(engine, query, data, len(query.rows))
        assert set(engine.last_paths.tolist()) <= {DENSE, EXACT}


def asked_of(data: torch.Tensor, sigma: float, kind: str) -> Query:
    """As `asked`, of longer rows; with some rows only, what is excluded is counted from the first of all."""
    query = asked(data[:, :9].contiguous(), sigma, kind)
    x = torch.cat([query.x, torch.full((3, 7), -1.0, dtype=torch.float64)], 1)
    exclude = torch.tensor([5, -1, 40]) if kind == "some rows" else query.exclude
    return Query(x, query.sigma, query.rows, query.log_prior, query.tol, exclude)
