"""The CUDA core as compiled: for both targets, without spilled registers, loading without a driver."""

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from geodiff import backends
from geodiff.backends import cuda

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("stream.cu", "exact.cu", "settle.cu", "prepare.cu", "products.cu", "combine.cu")
TARGETS = ("sm_80", "sm_90")
LATER = ("sm_100", "sm_120")
#: Shared memory a kernel may have without asking for more; the streaming kernel's is planned in plan.cu.
STATIC_SHARED = 48 * 1024


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """What ptxas says of every source and target."""
    return compiled(TARGETS, tmp_path_factory.mktemp("cubin"))


def compiled(targets: tuple[str, ...], folder: Path) -> dict[tuple[str, str], str]:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc to compile the CUDA core with")

    def report(job: tuple[str, str]) -> str:
        source, target = job
        command = [nvcc, "-std=c++17", "-O3", "-Xptxas=-v", f"-arch={target}", "-cubin"]
        done = subprocess.run(
            [*command, ROOT / "csrc/cuda" / source, "-o", folder / f"{source}.{target}"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    jobs = [(source, target) for source in SOURCES for target in targets]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(jobs, pool.map(report, jobs), strict=True))


@pytest.mark.heavy
def test_later_chips_have_code_without_spills(tmp_path: Path) -> None:
    nobody_spills(compiled(LATER, tmp_path))


def test_every_kernel_compiles_without_spills(reports: dict[tuple[str, str], str]) -> None:
    nobody_spills(reports)


def nobody_spills(reports: dict[tuple[str, str], str]) -> None:
    kernels = {target: 0 for _, target in reports}
    for (source, target), report in reports.items():
        spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
        assert spills, f"{source}: no report for {target}"
        assert set(spills) == {("0", "0", "0")}, f"{source} for {target}:\n{report}"
        shared = [int(size) for size in re.findall(r"(\d+) bytes smem", report)]
        assert max(shared, default=0) <= STATIC_SHARED, f"{source} for {target}:\n{report}"
        kernels[target] += len(re.findall("Compiling entry function", report))
    # stream: 4 and 16 queries; exact, weighted sums: 4 dtypes each; pairs: 4 dtypes twice; prepare, merge, settle;
    # combine: float and double
    assert set(kernels.values()) == {2 + 4 + 4 + 8 + 3 + 2}


def test_two_streaming_blocks_fit_into_the_registers_of_a_multiprocessor(reports: dict[tuple[str, str], str]) -> None:
    for target in TARGETS:
        registers = [int(count) for count in re.findall(r"Used (\d+) registers", reports["stream.cu", target])]
        assert len(registers) == 2
        assert max(registers) * 256 * 2 <= 65536, f"{target}: {registers}"


def test_the_extension_loads_and_needs_no_driver() -> None:
    built = list((ROOT / "geodiff").glob("_cuda*.so"))
    if not built:
        pytest.skip("this installation was built without CUDA (GEODIFF_CUDA=OFF, or no nvcc)")
    from geodiff import _cuda

    assert _cuda.runtime() >= 12000
    assert cuda.runtime() == f"{_cuda.runtime() // 1000}.{_cuda.runtime() % 1000 // 10}"
    needed = b"".join(re.findall(rb"lib(?:cuda|cudart|nvrtc|torch)\.so[.0-9]*", built[0].read_bytes()))
    assert b"cudart.so" not in needed, "the CUDA runtime is to be linked in"
    assert b"torch.so" not in needed


def test_a_call_without_a_driver_says_so() -> None:
    if not list((ROOT / "geodiff").glob("_cuda*.so")):
        pytest.skip("this installation was built without CUDA (GEODIFF_CUDA=OFF, or no nvcc)")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here: nothing is missing")
    from geodiff import _cuda

    with pytest.raises(RuntimeError, match=r"^cudaGetDevice: cudaError\w+: "):
        _cuda.Data(rows=0, dtype=0, n=1, d=1, half_norm=0, radius=1, max_norm=1, max_model_norm=1, device=0)
    assert backends.available()["cuda"] == "no CUDA device"


@pytest.mark.parametrize(
    ("driver", "capability", "expected"),
    [
        (12040, (9, 0), "built with CUDA 13.0, and the driver serves 12.4"),
        (13000, (7, 5), "compiled for compute capability 8.0 and later, found 7.5"),
        (13010, (12, 0), ""),
    ],
)
def test_a_machine_that_the_core_does_not_run_on(
    driver: int, capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "_core", SimpleNamespace(runtime=lambda: 13000, driver=lambda: driver))
    monkeypatch.setattr(cuda, "_NOT_BUILT", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    assert cuda.reason_missing() == expected
