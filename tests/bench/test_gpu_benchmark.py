"""bench/gpu.py without a GPU: all of it on the CPU, with what only CUDA has replaced; and the names in bench/gpu.sh.

What is not seen here: CUDA events and graphs, the ceilings, and memory figures.
"""

import json
import re
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from geodiff.measure import baselines
from geodiff.measure.device_profile import summary
from tests.bench.scripts import loaded

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """bench/gpu.py as a module, for small sizes on the CPU."""
    module = loaded("gpu")

    def once(run: Any, times: int = 1) -> float:
        start = time.perf_counter()
        for _ in range(times):
            run()
        return time.perf_counter() - start

    here: dict[str, Any] = {
        "DEVICE": "cpu",
        "BACKENDS": ("cpu",),
        "PASSING": "cpu",
        "FEW": 1,
        "SECONDS": 0.001,
        "FLUSHED": 1024,
        "DECISIVE": (
            module.Size(300, 75, torch.uint8, (1, 5), (0.5, 20.0), (2,), ("dense", "fused")),
            module.Size(300, 75, torch.float32, (1, 5)),
        ),
        "MORE": (module.Size(400, 75, torch.uint8, (2,), (20.0,)),),
        "OTHERS": ("torch-addmm", "naive"),
        "once": once,
        "device_profile": lambda call: call() is None or {"launches": 1},
        "recorded": lambda run: run,
        "ceilings": lambda: {"copy_GBps": 10.0},
    }
    for name, value in here.items():
        monkeypatch.setattr(module, name, value)
    cuda = SimpleNamespace(
        is_available=lambda: True,
        get_device_properties=lambda _: SimpleNamespace(name="none", multi_processor_count=0),
        mem_get_info=lambda: (2**40, 2**40),
        memory_allocated=lambda: 0,
        max_memory_allocated=lambda: 0,
        reset_peak_memory_stats=lambda: None,
        empty_cache=lambda: None,
    )
    # For this module alone: the backends have to see that there is no GPU.
    monkeypatch.setattr(module, "torch", SimpleNamespace(**{**vars(torch), "cuda": cuda}))
    return module


def run(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options])
    gpu.main()


def test_the_whole_of_it(gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "gpu.json"
    run(gpu, monkeypatch, "--out", str(out), "--decisive")
    first = json.loads(out.read_text())
    run(gpu, monkeypatch, "--out", str(out), "--more")
    document = json.loads(out.read_text())
    assert document["cells"][: len(first["cells"])] == first["cells"], "what was there is kept"
    cells = document["cells"]
    by_pass = [c for c in cells if "pass" in c]
    assert [(c["pass"], c["B"], c["sigma"]) for c in by_pass] == [
        (name, 1, sigma) for sigma in (0.5, 20.0) for name in ("dense", "fused")
    ]
    assert all(c["error"] <= gpu.TOL and c["ms"] > 0 for c in by_pass)
    cells = [c for c in cells if "pass" not in c]
    assert [(c["N"], c["dtype"], c["B"], c["sigma"]) for c in cells] == [
        *((300, "uint8", batch, sigma) for batch in (1, 5) for sigma in (0.5, 20.0)),
        *((300, "float32", batch, sigma) for batch in (1, 5) for sigma in (0.5, 20.0)),
        (400, "uint8", 2, 20.0),
    ]
    assert [(t["asked"], t["B"], t["evaluations"]) for t in document["trajectories"]] == [("cpu", 2, 35)]
    for cell in cells:
        assert cell["error"] <= gpu.TOL
        assert min(cell["ms"], cell["cold_ms"], cell["eager_ms"]) > 0
        assert cell["one_call"] == {"launches": 1}
        first_size = (cell["N"], cell["dtype"]) == (300, "uint8")
        assert set(cell["peers"]) == {"float32", "tf32", "bf16"} | ({"torch-addmm", "naive"} if first_size else set())
        for name, peer in cell["peers"].items():
            assert peer["ratio"] == pytest.approx(peer["ms"] / cell["ms"])
            assert peer["error"] <= (0.1 if name == "bf16" else 1e-3)


def test_what_is_done_is_on_disk_when_time_is_up(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, cell = tmp_path / "gpu.json", gpu.cell

    def slow(*arguments: Any) -> Any:
        if out.exists():
            raise KeyboardInterrupt
        return cell(*arguments)

    monkeypatch.setattr(gpu, "cell", slow)
    with pytest.raises(KeyboardInterrupt):
        run(gpu, monkeypatch, "--out", str(out))
    assert len(json.loads(out.read_text())["cells"]) == 1
    monkeypatch.setattr(gpu, "cell", cell)
    run(gpu, monkeypatch, "--out", str(out), "--seconds", "0")
    document = json.loads(out.read_text())
    assert (len(document["cells"]), len(document["left_out"])) == (1, 3)
    with pytest.raises(SystemExit, match="nothing was measured"):
        run(gpu, monkeypatch, "--seconds", "0")


def test_small_and_once_run_every_dtype(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up, sizes = gpu.made_up, []
    monkeypatch.setattr(gpu, "made_up", lambda n, d, dtype: (sizes.append((n, d)), made_up(min(n, 99), d, dtype))[1])
    run(gpu, monkeypatch, "--once")
    assert sizes == [(50_000, 3072)]
    run(gpu, monkeypatch, "--small")
    assert {d for _, d in sizes} >= {3072, 12_288}, "clusters of blocks"
    monkeypatch.setattr(gpu, "TOL", 0.0)
    with pytest.raises(SystemExit, match="over the contract"):
        gpu.small("cpu")


def test_a_profile_counts_per_call() -> None:
    def event(name: str, time: float = 0.0, *, device: bool = True) -> SimpleNamespace:
        kind = torch.autograd.DeviceType.CUDA if device else torch.autograd.DeviceType.CPU
        return SimpleNamespace(name=name, device_type=kind, device_time=time)

    calls = 2 * [event("stream", 50.0), event("merge", 2.0), event("merge", 4.0)]
    host = [event("cudaLaunchKernel", device=False), *3 * [event("cudaStreamSynchronize", device=False)]]
    assert summary([*calls, *host], 2) == {
        "launches": 3.0,
        "waits": 1.0,  # one of the three is the profiler's own, at the end
        "device_us": 56.0,
        "kernels": {"stream": [1.0, 50.0], "merge": [2.0, 3.0]},
    }


def test_another_peer_that_is_missing_fails_or_is_slow_leaves_a_note(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = gpu.made_up(50, 12, torch.uint8)
    truth = gpu.Truth(data, gpu.queries(data, 3, 1.0), 1.0)
    short = gpu.Truth(data, truth.x[:, :5], 1.0)
    monkeypatch.setitem(sys.modules, "pykeops.torch", None)
    assert gpu.Other("keops", data).entry(truth) == {"note": "not installed: pykeops.torch"}
    assert "RuntimeError" in gpu.Other("naive", data).entry(short)["note"]
    monkeypatch.setattr(gpu, "OTHERS_SECONDS", 0.0)
    slow = gpu.Other("naive", data)
    assert "ms" in slow.entry(truth)
    assert "left out" in slow.entry(truth)["note"]


def test_a_long_call_is_made_twice(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(gpu, "LONG", 0.0)
    assert gpu.seconds(lambda: calls.append(0)) > 0
    assert len(calls) == 2
    monkeypatch.setattr(gpu, "LONG", 10.0)
    gpu.seconds(lambda: calls.append(0))
    assert len(calls) >= 2 + 2 + 3


def test_faiss_on_a_gpu_needs_its_gpu_indexes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Index:
        def __init__(self, resources: object, d: int) -> None:
            self.added: list[torch.Tensor] = []

        def add(self, points: torch.Tensor) -> None:
            self.added.append(points)

        def search(self, x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
            shape = (len(x), min(k, len(self.added[0])))
            return torch.empty(shape, device=x.device), torch.empty(shape, dtype=torch.int64, device=x.device)

    for name in ("faiss", "faiss.contrib", "faiss.contrib.torch_utils"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    points = torch.empty(500, 12, device="meta")  # not on the CPU, as points on a GPU
    with pytest.raises(ImportError, match="not installed: faiss-gpu"):
        baselines.made("faiss-200", points)
    monkeypatch.setattr(sys.modules["faiss"], "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(sys.modules["faiss"], "GpuIndexFlatL2", Index, raising=False)
    assert baselines.made("faiss-200", points)(points[:3], 1.0).shape == (3, 12)


def test_sanitizers_look_at_every_kernel() -> None:
    script = (ROOT / "bench/gpu.sh").read_text()
    listed = re.search(r"^kernels=\(([\w ]+)\)", script, re.MULTILINE)
    assert listed is not None
    sources = "".join(file.read_text() for file in (ROOT / "kernels").glob("*.py"))
    # Triton names a kernel as its function; what is never given a grid is inlined.
    functions = set(re.findall(r"^@triton\.jit(?:\(.*\))?\ndef (\w+)\(", sources, re.MULTILINE))
    launched = {name for name in functions if re.search(rf"\b{name}\[\(|configured\(\w+\)\({name}\)", sources)}
    assert {"merge_kernel", "logits_bytes", "weighted_sum_kernel"} <= launched
    # Beside them the namespace of the CUDA C++ kernels.
    assert set(listed[1].split()) == launched | {"geodiff"}
