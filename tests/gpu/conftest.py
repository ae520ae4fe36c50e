"""These tests need a GPU and say so where there is none; what can be known without one is tested in tests/cuda.

With GEODIFF_NEEDS_GPU=1, as bench/gpu.sh sets it, what is missing is a failure.
"""

import pytest
import torch

from tests.gpu.needed import needed


@pytest.fixture(autouse=True)
def device() -> torch.device:
    """The GPU under test."""
    if not torch.cuda.is_available():
        needed("no CUDA device")
    return torch.device("cuda", torch.cuda.current_device())
