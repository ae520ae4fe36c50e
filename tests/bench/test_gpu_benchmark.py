"""bench/gpu.py without a GPU: all of it on the CPU, with what only CUDA has replaced; and the names in bench/gpu.sh.

What is not seen here: CUDA events and graphs, the ceilings, and memory figures.
"""

import importlib.util
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

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """bench/gpu.py as a module, for small sizes on the CPU."""
    spec = importlib.util.spec_from_file_location("bench_gpu", ROOT / "bench/gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def once(run: Any) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    here: dict[str, Any] = {
        "DEVICE": "cpu",
        "BACKENDS": ("cpu",),
        "SECONDS": 0.001,
        "SIZES": ((300, 75, (1, 5), (torch.uint8, torch.float32)), (400, 75, (2,), (torch.uint8,))),
        "OTHERS": ("torch-addmm", "naive"),
        "once": once,
        "recorded": lambda run: run,
        "ceilings": lambda: {"copy_GBps": 10.0},
        "trajectory": lambda data, name: {"backend": name},  # 128 samples: long
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


def test_the_whole_of_it(gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "gpu.json")])
    gpu.main()
    document = json.loads((tmp_path / "gpu.json").read_text())
    cells = document["cells"]
    assert [(c["N"], c["dtype"], c["B"]) for c in cells[::2]] == [
        (300, "uint8", 1),
        (300, "uint8", 5),
        (300, "float32", 1),
        (300, "float32", 5),
        (400, "uint8", 2),
    ]
    assert document["trajectories"] == [{"backend": "cpu"}]
    for cell in cells:
        assert cell["error"] <= gpu.TOL
        assert cell["ms"] > 0
        first = (cell["N"], cell["dtype"]) == (300, "uint8")
        assert set(cell["peers"]) == {"float32", "tf32", "bf16"} | ({"torch-addmm", "naive"} if first else set())
        for name, peer in cell["peers"].items():
            assert peer["ratio"] == pytest.approx(peer["ms"] / cell["ms"])
            assert peer["error"] <= (0.1 if name == "bf16" else 1e-3)


def test_small_runs_every_dtype(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.small("cpu")
    monkeypatch.setattr(gpu, "TOL", 0.0)
    with pytest.raises(SystemExit, match="over the contract"):
        gpu.small("cpu")


def test_another_peer_that_is_missing_fails_or_is_slow_leaves_a_note(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = gpu.made_up(50, 12, torch.uint8)
    x = gpu.queries(data, 3, 1.0)
    monkeypatch.setitem(sys.modules, "pykeops.torch", None)
    assert gpu.Other("keops", data).entry(data, x, 1.0) == {"note": "not installed: pykeops.torch"}
    assert "RuntimeError" in gpu.Other("naive", data).entry(data, x[:, :5], 1.0)["note"]
    monkeypatch.setattr(gpu, "OTHERS_SECONDS", 0.0)
    slow = gpu.Other("naive", data)
    assert "ms" in slow.entry(data, x, 1.0)
    assert "left out" in slow.entry(data, x, 1.0)["note"]


def test_a_long_call_is_made_twice(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(gpu, "LONG", 0.0)
    assert gpu.seconds(lambda: calls.append(0)) > 0
    assert len(calls) == 2
    monkeypatch.setattr(gpu, "LONG", 10.0)
    gpu.seconds(lambda: calls.append(0))
    assert len(calls) >= 2 + 3 + 3


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
    # Triton names a kernel as its function; those that are launched take pointers, and the others are inlined.
    launched = set(re.findall(r"^@triton\.jit\ndef ([a-z]\w*)\(\s*\w+_ptr", sources, re.MULTILINE))
    assert "merge_kernel" in launched
    # Beside them the namespace of the CUDA C++ kernels.
    assert set(listed[1].split()) == launched | {"geodiff"}
