"""What the compiled core asks of a machine: an old glibc, PyTorch's threads, and nothing else."""

import re
import shutil
import subprocess
import sys

import pytest

_cpu = pytest.importorskip("geodiff._cpu", reason="the compiled core is not installed")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads ELF files and /proc: Linux only")
GLIBC = (2, 28)  # manylinux_2_28
LIBRARIES = r"libm\.so|libc\.so|libdl\.so|libpthread\.so|libgcc_s\.so|ld-linux"


def readelf(option: str) -> str:
    program = shutil.which("readelf")
    if program is None:
        pytest.skip("readelf is not installed")
    return subprocess.run([program, "--wide", option, _cpu.__file__], capture_output=True, text=True, check=True).stdout


def test_the_core_asks_for_libraries_that_every_linux_has() -> None:
    if "libasan" in readelf("--dynamic"):
        pytest.skip("built with sanitizers")
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", readelf("--dynamic"))
    assert needed
    assert [name for name in needed if not re.match(LIBRARIES, name)] == []


def test_the_core_asks_for_no_newer_glibc_than_a_wheel_promises() -> None:
    if "libasan" in readelf("--dynamic"):
        pytest.skip("built with sanitizers")
    versions = {tuple(map(int, v.split("."))) for v in re.findall(r"Name: GLIBC_([\d.]+)", readelf("--version-info"))}
    assert versions
    assert max(versions) <= GLIBC


def test_one_openmp_runtime_is_in_the_process() -> None:
    code = (
        "import re, torch, geodiff\n"
        "torch.set_num_threads(2)\n"
        "denoiser = geodiff.OptimalDenoiser(torch.randint(0, 256, (5000, 64), dtype=torch.uint8), backend='cpu')\n"
        "torch.randn(300, 300) @ torch.randn(300, 300)\n"
        "denoiser(torch.randn(64, 64), 1.0)\n"
        "maps = open('/proc/self/maps').read()\n"
        "print(*sorted(set(re.findall(r'/lib(?:g|i|)omp[^/\\n]*\\.so[^\\s]*', maps))))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert len(loaded) <= 1
