"""The GPU core compiled for the CPU emulator, once per session."""

import importlib.util
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from geodiff.backends import cuda

ROOT = Path(__file__).resolve().parents[2]
FLAGS = (
    "-std=c++17",
    "-O1",
    "-fPIC",
    "-fvisibility=hidden",
    "-fopenmp-simd",
    "-DGEODIFF_CUDA_EMULATED",
    "-Wno-attributes",
)


class Emulated(NamedTuple):
    """core: the module as geodiff._cuda is; emulator: what the tests turn."""

    core: Any
    emulator: Any


@pytest.fixture(scope="session")
def _built(tmp_path_factory: pytest.TempPathFactory) -> Emulated:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ to compile the emulated GPU core with")
    import pybind11

    folder = tmp_path_factory.mktemp("emulated")
    paths = (ROOT / "csrc/cuda", ROOT / "tests/cuda", pybind11.get_include(), sysconfig.get_path("include"))
    includes = [f"-I{path}" for path in paths]

    def compiled(source: Path) -> str:
        target = folder / f"{source.name}.o"
        subprocess.run([compiler, *FLAGS, *includes, "-x", "c++", "-c", source, "-o", target], check=True)
        return str(target)

    with ThreadPoolExecutor(2) as pool:  # the longest first
        objects = list(
            pool.map(compiled, [ROOT / "tests/cuda/bindings.cpp", *sorted((ROOT / "csrc/cuda").glob("*.cu"))])
        )
    library = folder / "_cuda.so"
    subprocess.run([compiler, "-shared", *objects, "-o", library], check=True)
    return Emulated(_load("emulated._cuda", library), _load("emulated.emulator", library))


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every buffer that the engine takes holds NaN, or bytes that make one, before a kernel writes it."""
    empty = torch.empty

    def poisoned(*shape: Any, **options: Any) -> Tensor:
        out = empty(*shape, **options)
        return out.fill_(torch.nan if out.is_floating_point() else -1 if out.dtype != torch.uint8 else 0xFF)

    monkeypatch.setattr(cuda.torch, "empty", poisoned)
    torch.set_num_threads(1)


@pytest.fixture
def emulated(_built: Emulated) -> Emulated:
    """The same for every test: two multiprocessors of an H100, without the dense pass, threads in rising order."""
    _built.emulator.set_machine(2, 232448, True)
    _built.emulator.set_dense(False)
    _built.emulator.set_groups([])
    _built.emulator.set_most_blocks_along_x(2**31 - 1)
    _built.emulator.set_ahead(0)
    _built.emulator.worst_conflict()
    _built.emulator.set_clusters_compiled(True)
    _built.emulator.set_most_blocks(65535)
    _built.emulator.set_order(0)
    return _built


def _load(name: str, library: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
