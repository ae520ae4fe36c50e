"""These tests run in Triton's interpreter, which is chosen when triton is first imported: in a process of their own.

`tests/kernels/test_interpreted.py` starts it; by hand: TRITON_INTERPRET=1 pytest tests/kernels/interpreted.
"""

import os

import pytest
import torch

if os.environ.get("TRITON_INTERPRET", "") != "1":
    collect_ignore_glob = ["test_*.py"]

DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)


@pytest.fixture(params=DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def stored(request: pytest.FixtureRequest) -> torch.dtype:
    """Every storage dtype in turn."""
    dtype: torch.dtype = request.param
    return dtype
