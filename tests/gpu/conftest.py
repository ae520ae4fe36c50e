"""These tests need a GPU and say so where there is none; what can be known without one is tested in tests/cuda."""

import pytest
import torch


@pytest.fixture(autouse=True)
def device() -> torch.device:
    """The GPU under test."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device("cuda", torch.cuda.current_device())
