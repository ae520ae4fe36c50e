"""bench/collapsed.py: what is timed are evaluations that every sample answered from memory."""

import torch

from geodiff import OptimalDenoiser
from tests.bench.scripts import loaded


def test_evaluations_from_memory_are_timed_and_told() -> None:
    data = torch.randint(0, 256, (400, 1, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = loaded("collapsed").collapsed(OptimalDenoiser(data, backend="cpu"), 3, 1)
    assert found["evaluations"] > 5
    assert 0 < found["from_sigma"] < 80
    assert 3 <= found["rows_read_median"] < 400
    assert 0 < found["wall_ms_least"] <= found["wall_ms_median"]
    assert found["cpu_ms_median"] > 0
