"""The rules of the benchmark: right peers are right, ratios are to the fastest, broken results show no speed."""

import time

import pytest
import torch

from geodiff import reference
from geodiff.backends import cpu
from geodiff.measure import benchmark, stopwatch
from geodiff.measure.baseline_process import opened
from geodiff.measure.baselines import COMPILED, DESCRIPTIONS, Peer, reporting
from geodiff.measure.benchmark import Ours
from geodiff.measure.stopwatch import timed

DATA = torch.randint(0, 256, (400, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
QUICK = ["torch-softmax", "torch-addmm", "torch-sdpa", "torch-bfloat16", "faiss-200", "naive"]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # raised inside torch.compile itself
@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.heavy) for name in COMPILED)])
def test_peers_compute_the_denoiser(name: str) -> None:
    x = reference.model_space(DATA[:9], torch.float32).flatten(1) + 0.5 * torch.randn(9, 75)
    exact = reference.denoise(x, DATA.flatten(1), 0.5)
    with opened(DATA, [name]) as (peer,):
        if peer.timed is None:
            pytest.skip(f"{name}: {peer.reason}")
        answer, seconds = peer.timed(x, 0.5)
    allowed = 3e-2 if name == "torch-bfloat16" else 1e-3
    assert (answer - exact).norm(dim=1).max() <= allowed * exact.norm(dim=1).max()
    assert seconds > 0


def test_unknown_peer() -> None:
    with pytest.raises(ValueError, match=r"^peers: .*allowed"), opened(DATA, ["jax"]):
        pass
    assert all(DESCRIPTIONS.values())


def test_a_short_call_counts_once_it_has_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch, "SETTLING", 0.03)
    calls = []

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        calls.append(0.02 if len(calls) < 2 else 0.001)  # the first calls take longer
        time.sleep(calls[-1])
        return x

    _, seconds = stopwatch.timed(denoise)(DATA, 1.0)
    assert len(calls) == 3
    assert seconds < 0.02


def test_a_long_call_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch, "LONG", 0.01)
    calls = []

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        calls.append(sigma)
        time.sleep(0.01)
        return x

    _, seconds = stopwatch.timed(denoise)(DATA, 1.0)
    assert len(calls) == 1
    assert seconds >= 0.01


def test_a_cell_times_and_checks_every_way() -> None:
    denoisers = benchmark.denoisers_for(DATA, benchmark.our_variants(), [1e-5])
    with opened(DATA, QUICK[:2]) as peers:
        cell = benchmark.Bench(DATA, denoisers, peers, rounds=3).run(2.0, 5)
    assert len(cell.ours) >= 1
    for timing in (*cell.ours, *cell.peers):
        assert len(timing.milliseconds) == 3
        assert timing.error <= 1e-5
    assert cell.baseline in cell.peers
    assert max(cell.ratio(timing) for timing in cell.peers) == 1


def test_each_tol_is_timed_and_kept() -> None:
    denoisers = benchmark.denoisers_for(DATA, [("cpu", cpu.isa()), ("reference", "")], [1e-5, 1e-3])
    assert [ours.tol for ours in denoisers.values()] == [1e-5, 1e-5, 1e-3, 1e-3]
    assert [name.rpartition(" ")[2] for name in denoisers] == ["tol=1e-05", "tol=1e-05", "tol=0.001", "tol=0.001"]
    cell = benchmark.Bench(DATA, denoisers, [], rounds=1).run(2.0, 5)
    assert all(timing.error <= denoisers[timing.name].tol for timing in cell.ours)


def test_a_broken_result_has_no_speed() -> None:
    cell = benchmark.Bench(DATA, {"wrong": Ours(lambda x, sigma: x * 1.001)}, [], rounds=2).run(2.0, 5)
    assert cell.ours[0].milliseconds == []
    assert "breaks the contract" in cell.ours[0].note


def test_a_peer_that_fails_says_why() -> None:
    def fail(x: torch.Tensor, sigma: float) -> torch.Tensor:
        raise RuntimeError("too large")

    cell = benchmark.Bench(DATA, {}, [Peer("naive", timed(reporting(fail)))], rounds=1).run(2.0, 5)
    assert cell.peers[0].note == "RuntimeError: too large"
    with pytest.raises(RuntimeError, match="too large"):
        benchmark.Bench(DATA, {"ours": Ours(fail)}, [], rounds=1).run(2.0, 5)


@pytest.mark.parametrize(("name", "kept"), [("naive", [40.0]), ("keops", [30.0])])
def test_a_slow_peer_runs_once(monkeypatch: pytest.MonkeyPatch, name: str, kept: list[float]) -> None:
    monkeypatch.setattr(benchmark, "PATIENCE", 0.02)
    seconds = iter([0.04, 0.03])  # the first of one that compiles is no time of a call

    def slow(x: torch.Tensor, sigma: float) -> tuple[torch.Tensor, float]:
        return x, next(seconds)

    cell = benchmark.Bench(DATA, {}, [Peer(name, slow)], rounds=3).run(2.0, 5)
    assert cell.peers[0].milliseconds == kept


def test_a_peer_over_the_limit_is_not_given_more_queries() -> None:
    def slow(x: torch.Tensor, sigma: float) -> tuple[torch.Tensor, float]:
        return x, 30.0

    bench = benchmark.Bench(DATA, {}, [Peer("naive", slow)], rounds=3)
    for batch in (4, 5, 4, 1):
        bench.run(2.0, batch)
    assert [cell.peers[0].note for cell in bench.cells] == ["", "left out: 30 s at B = 4", "", ""]
    assert [len(cell.peers[0].milliseconds) for cell in bench.cells] == [1, 0, 1, 1]
