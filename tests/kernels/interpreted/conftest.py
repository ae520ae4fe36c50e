"""These tests run in Triton's interpreter, which is chosen when triton is first imported: in a process of their own.

`tests/kernels/test_interpreted.py` starts it; by hand: TRITON_INTERPRET=1 pytest tests/kernels/interpreted.
"""

import os
from types import FunctionType, SimpleNamespace

import pytest
import torch

from geodiff.local.triton import TritonLocalEngine

if os.environ.get("TRITON_INTERPRET", "") != "1":
    collect_ignore_glob = ["test_*.py"]
elif TritonLocalEngine.missing():  # Triton 3.2
    collect_ignore = ["test_local.py"]


@pytest.fixture(scope="session", autouse=True)
def _patch_the_language_once() -> None:
    """Triton lists and patches its language anew for every launch and for every call of a device function.

    Nothing else uses the language in this process, so that it may stay patched. Where a version of
    Triton does not patch in this function, the tests take the longer way.
    """
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    patch = getattr(interpreter, "_patch_lang", None)
    if patch is None:
        return
    patched: set[str] = set()

    def patch_once(function: FunctionType) -> SimpleNamespace:
        if function.__module__ not in patched:
            patch(function)
            patched.add(function.__module__)
        return SimpleNamespace(restore=lambda: None)

    interpreter._patch_lang = patch_once


DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)


@pytest.fixture(params=DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def stored(request: pytest.FixtureRequest) -> torch.dtype:
    """Every storage dtype in turn."""
    dtype: torch.dtype = request.param
    return dtype
