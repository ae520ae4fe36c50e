"""What a call costs beside the kernel, counted and not timed: bench/scaling.py measures it (`overhead`)."""

import sys
from types import FrameType
from typing import Any

import pytest
import torch

import geodiff

#: Calls of functions, Python's and C's, in one evaluation. It was 161 when a call cost 0.3 to 0.5 ms of Python.
MOST = 115


@pytest.mark.skipif(not geodiff.backends.is_available("cpu"), reason=geodiff.backends.available()["cpu"])
@pytest.mark.parametrize("shape", [(64,), (1, 8, 8)])
def test_an_evaluation_makes_few_calls(shape: tuple[int, ...]) -> None:
    data = torch.randint(0, 256, (500, *shape), dtype=torch.uint8)
    denoiser, x = geodiff.OptimalDenoiser(data), torch.randn(1, *shape)
    denoiser(x, 1.0)
    calls: list[str] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            calls.append(frame.f_code.co_name if event == "call" else argument.__name__)

    sys.setprofile(note)
    try:
        denoiser(x, 1.0)
    finally:
        sys.setprofile(None)
    assert len(calls) <= MOST, calls
