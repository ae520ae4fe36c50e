"""Covariances, draws and rows that a query does not see, on a real GPU, from both engines."""

import pytest
import torch

from geodiff.backends.selection import open_engine
from tests.engine_moments import KINDS, asked, check_covariance, check_draws, check_posterior, some_data
from tests.gpu.needed import need_backend


@pytest.mark.parametrize("backend", ["cuda", "triton"])
@pytest.mark.parametrize("stored", [torch.uint8, torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_covariances_and_draws(backend: str, stored: torch.dtype, kind: str, device: torch.device) -> None:
    need_backend(backend)
    data = some_data(stored)
    engine = open_engine(backend, data.to(device))
    for sigma in (1e-3, 0.3, 4.0, 80.0):
        query = asked(data, sigma, kind)
        check_posterior(engine, query, data, 4)
        check_covariance(engine, query, data)
        check_draws(engine, query, data)
