"""What a call costs beside the kernel, counted and not timed: bench/scaling.py measures it (`overhead`)."""

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import torch

import geodiff

#: Calls of functions, Python's and C's, in one evaluation. It was 161 when a call cost 0.3 to 0.5 ms of Python.
MOST = 115


def calls_of(work: Callable[[], Any]) -> list[str]:
    """The functions that `work` calls; none of a garbage collection that falls into it, with its callbacks."""
    calls: list[str] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            calls.append(frame.f_code.co_name if event == "call" else argument.__name__)

    collecting = gc.isenabled()
    gc.disable()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        if collecting:
            gc.enable()
    return calls


@pytest.mark.skipif(not geodiff.backends.is_available("cpu"), reason=geodiff.backends.available()["cpu"])
@pytest.mark.parametrize("shape", [(64,), (1, 8, 8)])
def test_an_evaluation_makes_few_calls(shape: tuple[int, ...]) -> None:
    data = torch.randint(0, 256, (500, *shape), dtype=torch.uint8)
    denoiser, x = geodiff.OptimalDenoiser(data), torch.randn(1, *shape)
    denoiser(x, 1.0)
    calls = calls_of(lambda: denoiser(x, 1.0))
    assert len(calls) <= MOST, calls
