"""One denoiser called from several Python threads at once: kernels hold no state and release the interpreter lock."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import geodiff
from geodiff.backends import cpu


@pytest.mark.parametrize("isa", cpu.isas())
def test_calls_at_once_answer_as_calls_in_turn(isa: str) -> None:
    g = torch.Generator().manual_seed(0)
    # Enough rows for several pieces per thread, so that who does which depends on what else runs.
    data = torch.randint(0, 256, (12_000, 200), dtype=torch.uint8, generator=g)
    denoiser = geodiff.OptimalDenoiser(data)
    calls = [(torch.randn(b, 200, generator=g) * s, s) for b in (1, 5, 33) for s in (0.05, 3.0, 60.0)] * 4

    def answer(call: tuple[torch.Tensor, float]) -> torch.Tensor:
        with cpu.use_isa(isa):  # a context variable: each thread has its own
            return denoiser(*call)

    in_turn = [answer(call) for call in calls]
    with ThreadPoolExecutor(6) as pool:
        at_once = list(pool.map(answer, calls))
    for a, b in zip(in_turn, at_once, strict=True):
        assert torch.equal(a, b)


def test_the_interpreter_runs_on_during_a_call() -> None:
    data = torch.randint(0, 256, (20_000, 1000), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    denoiser, x = geodiff.OptimalDenoiser(data), 40 * torch.randn(64, 1000)
    ticks, done = 0, threading.Event()

    def call() -> None:
        for _ in range(3):
            denoiser(x, 40.0)
        done.set()

    worker = threading.Thread(target=call)
    worker.start()
    while not done.is_set():
        ticks += 1
        time.sleep(1e-3)
    worker.join()
    assert ticks >= 5, "with the lock held this thread would have stood still"
