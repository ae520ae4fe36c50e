"""Runs tests/kernels/interpreted in a process where Triton interprets: `triton.jit` decides that on import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from geodiff.backends.selection import OLDEST_TRITON

pytest.importorskip("triton", minversion=".".join(map(str, OLDEST_TRITON)))

FOLDER = Path(__file__).parent / "interpreted"


def test_kernels_agree_with_the_reference_in_the_interpreter() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=5", str(FOLDER)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    print(done.stdout[-4000:])
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
