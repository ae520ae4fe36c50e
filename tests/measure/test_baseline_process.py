"""Peers in processes of their own: the same answers, times from over there, failures as remarks, nobody left behind.

A made-up package faiss on the path stands for one that is slow, fails, dies or is missing.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from geodiff import reference
from geodiff.measure import baseline_process, benchmark
from geodiff.measure.baseline_process import PeerProcess, opened
from geodiff.measure.baselines import Peer, PeerFailed, in_process, model_points

DATA = torch.randint(0, 256, (300, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SLOW = 0.1

FAKE = f"""
import os, time
from pathlib import Path

NOTES = Path(__file__).parents[1]
NOTES.joinpath("pid").write_text(str(os.getpid()))

def omp_set_num_threads(n):
    NOTES.joinpath("threads").write_text(str(n))

class IndexFlatL2:
    def __init__(self, d):
        print("noise on standard output")
    def add(self, points):
        self.points = points
    def search(self, x, k):
        if len(x) == 1:
            raise RuntimeError("first line\\ntoo large")
        if len(x) == 2:
            os._exit(7)
        if len(x) == 3:
            NOTES.joinpath("asleep").touch()
            time.sleep(60)
        time.sleep({SLOW})
        found = ((x[:, None] - self.points[None]) ** 2).sum(2).sort(1)
        return found.values[:, :k], found.indices[:, :k]
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the made-up package, where it leaves its notes."""
    folder = tmp_path / "fake"
    (folder / "faiss" / "contrib").mkdir(parents=True)
    (folder / "faiss" / "__init__.py").write_text(FAKE)
    (folder / "faiss" / "contrib" / "torch_utils.py").touch()
    monkeypatch.syspath_prepend(folder)
    return folder


def queries(batch: int) -> torch.Tensor:
    clean = model_points(DATA)[:batch]
    return clean + 0.5 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16], ids=str)
def test_the_answer_is_that_of_the_same_peer_in_this_process(tmp_path: Path, dtype: torch.dtype) -> None:
    data = DATA if dtype == torch.uint8 else reference.model_space(DATA, dtype)
    save_file({"data": data}, tmp_path / "data.safetensors")
    here = in_process("torch-softmax", model_points(data))
    there = PeerProcess("torch-softmax", tmp_path / "data.safetensors")
    try:
        peer = there.peer()
        assert peer.reason == ""
        for batch, sigma in ((0, 1.0), (1, 0.5), (7, 40.0)):
            x = queries(batch)
            assert peer.timed is not None
            assert here.timed is not None
            assert torch.equal(peer.timed(x, sigma)[0], here.timed(x, sigma)[0])
    finally:
        there.close()


def test_times_in_the_table_are_those_of_the_worker(fake: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    with opened(DATA, ["torch-addmm", "faiss-200"]) as (softmax, faiss):
        pid = int((fake / "pid").read_text())
        assert running(pid)
        assert pid != os.getpid()
        assert (fake / "threads").read_text() == "1"
        start = time.perf_counter()
        assert faiss.timed is not None
        _, seconds = faiss.timed(queries(4), 0.5)
        around = time.perf_counter() - start
        assert SLOW <= seconds <= around - 2 * baseline_process.PAUSE
        cell = benchmark.Bench(DATA, {}, [softmax, faiss], rounds=2).run(0.5, 4)
    assert not running(pid)
    assert "faiss" not in sys.modules
    assert "noise" not in capfd.readouterr().out
    assert [timing.name for timing in cell.peers] == ["torch-addmm", "faiss-200"]
    assert len(cell.peers[1].milliseconds) == 2
    assert min(cell.peers[1].milliseconds) >= 1e3 * SLOW
    assert max(cell.peers[0].milliseconds) < 1e3 * SLOW
    assert cell.peers[1].error <= 1e-3  # 200 of 300 points are enough at this noise level
    assert cell.baseline is cell.peers[0]


def test_failures_become_remarks(fake: Path) -> None:
    with opened(DATA, ["faiss-200"]) as peers:
        pid = int((fake / "pid").read_text())

        def remark(batch: int) -> str:
            (timing,) = benchmark.Bench(DATA, {}, peers, rounds=1).run(0.5, batch).peers
            assert bool(timing.milliseconds) == (timing.note == "")
            return timing.note

        assert remark(1) == "RuntimeError: too large"
        assert remark(4) == "", "a failure is of one cell"
        assert remark(2) == "its process ended with exit code 7"
        assert remark(4) == "its process ended with exit code 7"
    assert not running(pid)


def test_a_missing_package_is_a_remark(fake: Path) -> None:
    (fake / "faiss" / "__init__.py").write_text("raise ModuleNotFoundError('no such module', name='faiss')")
    with opened(DATA, ["faiss-200", "torch-softmax"]) as peers:
        assert peers[0] == Peer("faiss-200", None, "not installed: faiss")
        assert peers[1].timed is not None


def test_ctrl_c_leaves_no_worker(fake: Path) -> None:
    command = [sys.executable, "-m", "geodiff", "bench", "--data", "digits", "--batch", "3", "--peer", "faiss-200"]
    path = os.pathsep.join(filter(None, sys.path))
    started = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not (fake / "asleep").exists():
        assert started.poll() is None, started.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(started.pid, signal.SIGINT)  # to the foreground processes, as a terminal sends it
    errors = started.communicate(timeout=30)[1]
    assert started.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert not running(int((fake / "pid").read_text()))


def test_a_peer_of_this_process_fails_alike() -> None:
    peer = in_process("torch-softmax", model_points(DATA))
    assert peer.timed is not None
    with pytest.raises(PeerFailed, match=r"^RuntimeError: "):
        peer.timed(torch.zeros(2, 5), 1.0)
