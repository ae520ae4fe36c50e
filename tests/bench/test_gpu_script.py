"""bench/gpu.sh from beginning to end in a bare checkout, on a machine that says it has a GPU.

Stand-ins: nvcc and its kin, pip, which copies the package that is here, and bench/gpu.py, which has tests of its own.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import geodiff

ROOT = Path(__file__).resolve().parents[2]
#: Everything is there, as far as the package can tell.
STUB = """
import geodiff.backends as backends
backends.available = lambda: {"cuda": "a stub", "triton": "a stub"}
backends.is_available = lambda name: True
"""
PYTHON = """#!/usr/bin/env bash
case "$*" in
"-m pip install"*)
    [[ -n ${BUILD_FAILS:-} ]] && { echo "no compiler"; exit 1; }
    while [[ $1 != --target ]]; do shift; done
    mkdir -p "$2" && cp -RL "$BUILT" "$2/geodiff" && cp -RL kernels "$2/geodiff/"
    [[ -z ${NO_GPU:-} ]] && cp "$STUB" "$2/sitecustomize.py"
    exit 0 ;;
*bench/gpu.py*)
    while [[ $# -gt 0 ]]; do [[ $1 == --out ]] && echo '{"cells": [1]}' >"$2"; shift; done
    exit 0 ;;
"-m pytest"*" -n 8 "*) # one shows as much, and eight take half a minute to import PyTorch
    set -- "${@/#8/1}" ;;
esac
exec "$REAL" "$@"
"""
TEST = """
import geodiff, os, pytest
def test_the_package_is_the_one_that_was_built():
    assert geodiff.__file__ == os.environ["OUT"] + "/site/geodiff/__init__.py"
    assert os.environ["GEODIFF_NEEDS_GPU"] == "1"
"""
SKIP = (
    TEST
    + """
def test_that_has_no_reason_to_run():
    pytest.skip("nothing here")
"""
)


class Machine(NamedTuple):
    """checkout: what git has, and nothing that was built; environment: with stand-ins first on the PATH."""

    checkout: Path
    environment: dict[str, str]

    def run(self, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "bench/gpu.sh"],
            cwd=self.checkout,
            env={**self.environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("no checkout to take the files from")
    checkout, stand_ins = tmp_path / "checkout", tmp_path / "bin"
    for name in listed.stdout.split("\0"):
        if name.startswith(("bench/gpu", "geodiff/", "kernels/", "tests/gpu/", "pyproject.toml")):
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name)
    for file in (checkout / "tests/gpu").glob("test_*.py"):
        file.unlink()
    (checkout / "tests/gpu/test_gpu_contract.py").write_text(TEST)
    (checkout / "tests/gpu/conftest.py").write_text("")
    stand_ins.mkdir()
    quiet = "#!/bin/sh\necho stand-in\n"
    for name, text in {
        "python3": PYTHON,
        **dict.fromkeys(("nvcc", "nvidia-smi", "compute-sanitizer", "ncu"), quiet),
    }.items():
        (stand_ins / name).write_text(text)
        (stand_ins / name).chmod(0o755)
    (tmp_path / "stub.py").write_text(STUB)
    environment = {
        **os.environ,
        "PATH": f"{stand_ins}:{os.environ['PATH']}",
        "OUT": str(tmp_path / "out"),
        "REAL": sys.executable,
        "BUILT": str(Path(geodiff.__file__).parent),
        "STUB": str(tmp_path / "stub.py"),
    }
    return Machine(checkout, environment)


def test_everything_runs_over_the_package_that_was_built(machine: Machine) -> None:
    done = machine.run()
    assert done.returncode == 0, done.stdout
    out = Path(machine.environment["OUT"])
    assert {file.name for file in out.iterdir()} == {
        *("site", "gpu.json", "tests.xml", "tests.log", "build.log", "sanitizers.log", "ncu.csv")
    }
    assert (out / "sanitizers.log").read_text().count("stand-in") == 4


@pytest.mark.heavy
def test_what_is_skipped_fails(machine: Machine) -> None:
    (machine.checkout / "tests/gpu/test_gpu_contract.py").write_text(SKIP)
    done = machine.run()
    assert done.returncode == 1
    assert "FAILED: tests were skipped" in done.stdout


@pytest.mark.heavy
def test_a_machine_without_a_gpu_fails(machine: Machine) -> None:
    for name in ("test_gpu_contract.py", "conftest.py"):
        shutil.copy(ROOT / "tests/gpu" / name, machine.checkout / "tests/gpu")
    done = machine.run(NO_GPU="1")
    assert done.returncode == 1
    assert "FAILED: backends" in done.stdout
    assert "FAILED: no test passed" in done.stdout


@pytest.mark.heavy
def test_a_build_that_fails_does_not_end_it(machine: Machine) -> None:
    done = machine.run(BUILD_FAILS="1")
    assert done.returncode == 1
    assert "FAILED: build" in done.stdout
    assert (Path(machine.environment["OUT"]) / "gpu.json").exists()
