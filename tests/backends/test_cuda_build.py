"""The CUDA core as compiled: for both targets, without spilled registers, loading without a driver."""

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch

from geodiff import backends
from geodiff.backends import cuda
from tests.backends.cuda_budgets import EPOCH_ENDS, FLOAT64, LOOPS, NVCC, SLOW
from tests.sass import innermost, kinds_of, loops_with_products, products_of

ROOT = Path(__file__).resolve().parents[2]
SOURCES = tuple(
    f"{name}.cu" for name in ("stream", "exact", "settle", "prepare", "products", "combine", "covariance", "drawn")
)
#: What only sm_90a has, which is a target of its own.
DENSE = (*(f"dense_{name}.cu" for name in ("prepare", "logits", "weights", "sums", "finish")), "fused.cu")
TARGETS = ("sm_80", "sm_90")
LATER = ("sm_100", "sm_120")
#: Shared memory a kernel may have without asking for more; the streaming kernel's is planned in plan.cu.
STATIC_SHARED = 48 * 1024


class Usage(NamedTuple):
    """What a kernel takes: registers a thread, bytes of its stack, where spilled ones go, and of shared memory."""

    registers: int
    stack: int
    shared: int


Reports = dict[tuple[str, str], list[Usage]]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """Of every source and target, its kernels."""
    return read_off(TARGETS) or compiled(TARGETS, tmp_path_factory.mktemp("cubin"))


def read_off(targets: tuple[str, ...]) -> Reports:
    """From the module that was built of these sources, with the same flags; empty where there is none."""
    built, tool = list((ROOT / "geodiff").glob("_cuda*.so")), cuobjdump()
    changed = max(path.stat().st_mtime for path in (ROOT / "csrc/cuda").iterdir())
    if tool is None or not built or built[0].stat().st_mtime < changed:
        return {}
    said = subprocess.run([tool, "-res-usage", built[0]], capture_output=True, text=True, check=True).stdout
    found: Reports = {}
    for part in said.split("Fatbin elf code:")[1:]:
        target = re.search(r"arch = (sm_\w+)", part)
        kernels = re.findall(r"Function (\w+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:0 ", part)
        assert len(kernels) == part.count("Function "), part
        for name, *numbers in kernels:
            source = re.search(r"_\d+_([a-z_]+)_cu_", name)  # of the namespace that has no name
            assert target, part
            assert source, name
            found.setdefault((f"{source[1]}.cu", target[1]), []).append(Usage(*map(int, numbers)))
    return {key: found[key] for key in found if key[1] in targets}


def cuobjdump() -> str | None:
    """The system's, or the one that comes with Triton."""
    tool = shutil.which("cuobjdump")
    if tool is None and find_spec("triton") is not None:
        import triton

        tool = triton.knobs.nvidia.cuobjdump.path if hasattr(triton, "knobs") else None
    return tool


def compiled(targets: tuple[str, ...], folder: Path, sources: tuple[str, ...] = SOURCES) -> Reports:
    """As ptxas says."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc to compile the CUDA core with")

    def report(job: tuple[str, str]) -> list[Usage]:
        source, target = job
        done = subprocess.run(
            [*command(nvcc, source, target), "-Xptxas=-v", "-o", folder / f"{source}.{target}"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "serialized" not in done.stderr, f"products wait for each other:\n{done.stderr}"
        spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
        used = re.findall(r"Used (\d+) registers.*", done.stderr)
        lines = [line for line in done.stderr.splitlines() if " registers" in line]
        assert len(spills) == len(used) == done.stderr.count("Compiling entry function"), done.stderr
        shared = [int(found[1]) if (found := re.search(r"(\d+) bytes smem", line)) else 0 for line in lines]
        return [Usage(int(r), sum(map(int, s)), m) for r, s, m in zip(used, spills, shared, strict=True)]

    jobs = [(source, target) for source in sources for target in targets]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(jobs, pool.map(report, jobs), strict=True))


def command(nvcc: str, source: str, target: str) -> list[str]:
    number = target.removeprefix("sm_")
    code = f"-gencode=arch=compute_{number},code={target}"  # nvcc's -arch=sm_90a compiles for sm_90, too
    return [nvcc, "-std=c++17", "-O3", code, "-cubin", str(ROOT / "csrc/cuda" / source)]


@pytest.mark.heavy
def test_later_chips_have_code_without_spills(tmp_path: Path) -> None:
    nobody_spills(compiled(LATER, tmp_path), LATER)


def test_every_kernel_compiles_without_spills(reports: Reports) -> None:
    nobody_spills(reports, TARGETS)


def test_the_dense_pass_keeps_its_sums_in_registers_and_the_tensor_cores_busy(tmp_path: Path) -> None:
    for (source, _), report in compiled(("sm_90a",), tmp_path, DENSE).items():
        assert {usage.stack for usage in report} == {0}, f"{source}:\n{report}"
        assert len(report) == {"dense_finish.cu": 1, "fused.cu": 3}.get(source, 2)


@pytest.mark.parametrize(("source", "target"), LOOPS)
def test_hot_loops_keep_to_their_budgets(source: str, target: str, tmp_path: Path) -> None:
    nvcc, tool = shutil.which("nvcc"), cuobjdump()
    if nvcc is None or tool is None:
        pytest.skip("no nvcc to compile the CUDA core with, or no cuobjdump to look at it with")
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    if f"release {NVCC}," not in version:
        pytest.skip(f"the budgets are those of nvcc {NVCC}")
    subprocess.run([*command(nvcc, source, target), "-o", tmp_path / "code"], check=True)
    code = subprocess.run([tool, "-sass", tmp_path / "code"], capture_output=True, text=True, check=True).stdout
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for part in code.split("Function : ")[1:]:
        name = re.search(r"\d+([a-z_]+_kernel)ILi(\d+)E", part.partition("\n")[0])
        assert name, part[:200]
        loops = innermost(loops_with_products(part))
        found[f"{name[1]}<{name[2]}>"] = {kinds_of(loop)[0]: (len(loop), products_of(loop)) for loop in loops}
        slow = re.compile(rf"\b(?:{SLOW if source in EPOCH_ENDS else f'{SLOW}|{FLOAT64}'})\b")
        assert not [text for loop in loops for text in loop if slow.search(text)], name[0]
    expected = LOOPS[source, target]
    assert {name: set(kinds) for name, kinds in found.items()} == {name: set(kinds) for name, kinds in expected.items()}
    for name, kinds in expected.items():
        for kind, (most, products) in kinds.items():
            instructions, here = found[name][kind]
            assert instructions / here <= 1.1 * most / products, f"the loop of {name} has grown: {found[name]}"


def nobody_spills(reports: Reports, targets: tuple[str, ...]) -> None:
    assert set(reports) == {(source, target) for source in SOURCES for target in targets}
    kernels = dict.fromkeys(targets, 0)
    for (source, target), report in reports.items():
        assert {usage.stack for usage in report} == {0}, f"{source} for {target}:\n{report}"
        assert max(usage.shared for usage in report) <= STATIC_SHARED, f"{source} for {target}:\n{report}"
        kernels[target] += len(report)
    # stream: 4 and 16 queries; exact: 4 dtypes, one query and four; weighted sums: 4 dtypes; pairs: 4 dtypes twice;
    # merge: few and many queries; settle; prepare, combine: float and double; covariance, masses, picks: 4 dtypes each,
    # and the merge of the first
    assert set(kernels.values()) == {2 + 8 + 4 + 8 + 3 + 2 + 2 + 4 + 4 + 4 + 1}


def test_two_blocks_fit_into_the_registers_of_a_multiprocessor(reports: Reports) -> None:
    for target in TARGETS:
        registers = [usage.registers for usage in reports["stream.cu", target]]
        assert len(registers) == 2
        assert max(registers) * 256 * 2 <= 65536, f"{target}: {registers}"
        registers = [usage.registers for usage in reports["exact.cu", target]]
        assert max(registers) * 256 * 2 <= 65536, f"four queries that read together, {target}: {registers}"


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
        _cuda.Data(rows=0, dtype=0, shape=(1, 1), half_norm=0, radii=(1, 1, 1), device=0)
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
