"""Recorded trajectories: when one is recorded, that it is the same trajectory, and what falls back to single steps.

Here the graph is a stand-in that runs the recorded work again, on the CPU; `tests/gpu` records real ones.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from geodiff import OptimalDenoiser, sample
from geodiff.backends import selection
from geodiff.backends.cpu import CpuEngine
from geodiff.backends.table import ANY, UINT8, Rule
from geodiff.solvers import graph

SIGMAS = [8.0, 3.0, 1.0, 0.0]


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What has been recorded so far, with the CPU's engine said to be recordable."""
    recorded: list[Callable[[], None]] = []

    def capture(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
        assert device == torch.device("cpu")
        work()
        recorded.append(work)
        return work

    monkeypatch.setattr(graph, "_capture", capture)
    monkeypatch.setattr(CpuEngine, "capturable", True)
    return recorded


@pytest.fixture
def denoiser() -> OptimalDenoiser:
    return OptimalDenoiser(torch.randint(0, 256, (60, 3, 4), dtype=torch.uint8), backend="cpu")


def noise(seed: int, batch: int = 5) -> Tensor:
    return 8 * torch.randn(batch, 3, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_recorded_once_and_right_every_time(
    captured: list[Callable[[], None]], denoiser: OptimalDenoiser, solver: str
) -> None:
    plain = [sample(denoiser, noise(seed), SIGMAS, solver, callback=lambda *_: None) for seed in range(4)]
    assert not captured
    for seed, expected in enumerate(plain):
        found = sample(denoiser, noise(seed), SIGMAS, solver)
        assert torch.equal(found.states, expected.states)
        assert torch.equal(found.denoised, expected.denoised)
        assert found.metadata == expected.metadata
        assert len(captured) == 1, "on the first call, and never again"


def test_a_result_is_the_callers_own(captured: list[Callable[[], None]], denoiser: OptimalDenoiser) -> None:
    sample(denoiser, noise(0), SIGMAS)
    first = sample(denoiser, noise(1), SIGMAS)
    kept = first.states.clone()
    sample(denoiser, noise(2), SIGMAS)
    assert len(captured) == 1
    assert torch.equal(first.states, kept)


def test_another_shape_solver_or_schedule_is_another_recording(
    captured: list[Callable[[], None]], denoiser: OptimalDenoiser
) -> None:
    for batch, sigmas, solver in (
        (5, SIGMAS, "heun"),
        (4, SIGMAS, "heun"),
        (4, SIGMAS, "euler"),
        (4, [8.0, 0.5], "euler"),
    ):
        sample(denoiser, noise(0, batch), sigmas, solver)
        found = sample(denoiser, noise(1, batch), sigmas, solver)
        expected = sample(denoiser, noise(1, batch), sigmas, solver, callback=lambda *_: None)
        assert torch.equal(found.states, expected.states)
    assert len(captured) == 4


def test_what_cannot_be_recorded_is_done_step_by_step(
    captured: list[Callable[[], None]], denoiser: OptimalDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def refuse(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
        tried.append(work)
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graph, "_capture", refuse)
    for _ in range(4):
        found = sample(denoiser, noise(0), SIGMAS)
    assert len(tried) == 1, "what failed once is not tried again"
    assert torch.equal(found.states, sample(denoiser, noise(0), SIGMAS, callback=lambda *_: None).states)


def test_other_data_under_the_same_denoiser_are_another_recording(
    captured: list[Callable[[], None]], denoiser: OptimalDenoiser
) -> None:
    expected = sample(denoiser, noise(0), SIGMAS, callback=lambda *_: None).states
    for _ in range(2):
        sample(denoiser, noise(0), SIGMAS)
    assert len(captured) == 1
    denoiser._points = denoiser._points.to(torch.device("cpu"))  # as after moves away and back
    for _ in range(2):
        assert torch.equal(sample(denoiser, noise(0), SIGMAS).states, expected)
    assert len(captured) == 2, "the first reads memory that may be gone"
    denoiser.tol = 1e-3
    sample(denoiser, noise(0), SIGMAS)
    assert len(captured) == 3, "the others are for another tolerance"


def test_what_is_recorded_for_rows_elsewhere_is_let_go(captured: list[Callable[[], None]]) -> None:
    denoiser = OptimalDenoiser(torch.randint(0, 256, (60, 3, 4), dtype=torch.uint8), backend="cpu")
    sample(denoiser, noise(0), SIGMAS)
    denoiser._points = OptimalDenoiser(denoiser.data.clone(), backend="cpu")._points
    sample(denoiser, noise(0), SIGMAS)
    assert len(graph._recordings[denoiser].latest) == 1, "the old rows are kept alive"


def test_solvers_that_take_turns_are_recorded_once(
    captured: list[Callable[[], None]], denoiser: OptimalDenoiser
) -> None:
    for _ in range(3):
        for solver in ("euler", "heun", "dpm2"):
            sample(denoiser, noise(0), SIGMAS, solver)
    assert len(captured) == 3
    for batch in range(1, graph.KEPT + 1):  # others push the first ones out
        sample(denoiser, noise(0, batch), SIGMAS, "euler")
    assert len(graph._recordings[denoiser].latest) == graph.KEPT
    before = len(captured)
    sample(denoiser, noise(0), SIGMAS, "heun")
    assert len(captured) == before + 1


def test_threads_do_not_meet_in_a_recording(captured: list[Callable[[], None]], denoiser: OptimalDenoiser) -> None:
    expected = [sample(denoiser, noise(seed), SIGMAS, callback=lambda *_: None).states for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            found = pool.map(lambda seed: sample(denoiser, noise(seed), SIGMAS).states, range(4))
            assert all(map(torch.equal, found, expected))
    assert len(captured) == 1


def test_whether_to_record_is_asked_for_the_batch_at_hand(
    captured: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = Rule("cpu", "cpu", UINT8, "few", largest_b=3, measured="here")
    monkeypatch.setattr(selection, "TABLE", (few, Rule("reference", "cpu", ANY, "many")))
    denoiser = OptimalDenoiser(torch.randint(0, 256, (60, 3, 4), dtype=torch.uint8))
    for batch, recorded in ((4, 0), (3, 1)):
        for _ in range(2):
            sample(denoiser, noise(0, batch), SIGMAS)
        assert len(captured) == recorded


def test_nothing_is_recorded_for_others(captured: list[Callable[[], None]], denoiser: OptimalDenoiser) -> None:
    def network(x: Tensor, sigma: Tensor) -> Tensor:
        return x / (1 + sigma**2)

    for _ in range(3):
        sample(network, noise(0), SIGMAS)
        sample(denoiser, noise(0)[:0], SIGMAS)
        sample(denoiser, noise(0), SIGMAS, progress=True)
    assert not captured


def test_a_trajectory_that_is_not_finite_is_taken_step_by_step(
    captured: list[Callable[[], None]], denoiser: OptimalDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sample(denoiser, noise(0), SIGMAS)
    monkeypatch.setattr(graph, "unchecked", lambda *arguments: arguments[-1].fill_(torch.nan))
    found = sample(denoiser, noise(0), SIGMAS)
    assert len(captured) == 1
    assert torch.equal(found.states, expected.states)
