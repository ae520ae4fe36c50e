"""The rules of the benchmark: right peers are right, ratios are to the fastest, broken results show no speed."""

import pytest
import torch

from geodiff import benchmark, reference
from geodiff.peers import DESCRIPTIONS, Peer, peers

DATA = torch.randint(0, 256, (400, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
QUICK = ["torch-softmax", "torch-addmm", "torch-sdpa", "torch-bfloat16", "faiss-200", "naive"]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # raised inside torch.compile itself
@pytest.mark.parametrize("name", [*QUICK, pytest.param("torch-compile", marks=pytest.mark.heavy)])
def test_peers_compute_the_denoiser(name: str) -> None:
    (peer,) = peers(DATA, [name])
    if peer.denoise is None:
        pytest.skip(f"{name}: {peer.reason}")
    x = reference.model_space(DATA[:9], torch.float32).flatten(1) + 0.5 * torch.randn(9, 75)
    exact = reference.denoise(x, DATA.flatten(1), 0.5)
    allowed = 3e-2 if name == "torch-bfloat16" else 1e-3
    assert (peer.denoise(x, 0.5) - exact).norm(dim=1).max() <= allowed * exact.norm(dim=1).max()


def test_a_missing_peer_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    (peer,) = peers(DATA, ["faiss-200"])
    assert peer.denoise is None
    assert "not installed" in peer.reason


def test_unknown_peer() -> None:
    with pytest.raises(ValueError, match=r"^peers: .*allowed"):
        peers(DATA, ["jax"])
    assert all(DESCRIPTIONS.values())


def test_a_cell_times_and_checks_every_way() -> None:
    denoisers = benchmark.denoisers_for(DATA, benchmark.our_variants(), 1e-5)
    cell = benchmark.run_cell(DATA, denoisers, peers(DATA, QUICK[:2]), 2.0, 5, rounds=3)
    assert len(cell.ours) >= 1
    for timing in (*cell.ours, *cell.peers):
        assert len(timing.milliseconds) == 3
        assert timing.error <= 1e-5
    assert cell.baseline in cell.peers
    assert max(cell.ratio(timing) for timing in cell.peers) == 1


def test_a_broken_result_has_no_speed() -> None:
    cell = benchmark.run_cell(DATA, {"wrong": lambda x, sigma: x * 1.001}, [], 2.0, 5, rounds=2)
    assert cell.ours[0].milliseconds == []
    assert "breaks the contract" in cell.ours[0].note


def test_a_peer_that_fails_says_why() -> None:
    def fail(x: torch.Tensor, sigma: float) -> torch.Tensor:
        raise RuntimeError("too large")

    cell = benchmark.run_cell(DATA, {}, [Peer("naive", fail)], 2.0, 5, rounds=1)
    assert cell.peers[0].note == "RuntimeError: too large"
