"""Runs tests/kernels/interpreted in a process where Triton interprets: `triton.jit` decides that on import."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from geodiff.backends.selection import OLDEST_TRITON

OLDEST = OLDEST_TRITON
try:
    with warnings.catch_warnings(action="ignore"):
        int(np.ones(1))
except TypeError:  # numpy makes no number of an array any more, which the interpreter asks for up to Triton 3.6
    OLDEST = (3, 7)
pytest.importorskip("triton", minversion=".".join(map(str, OLDEST)))

FOLDER = Path(__file__).parent / "interpreted"


def test_kernels_agree_with_the_reference_in_the_interpreter() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=5", str(FOLDER)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    print(done.stdout[-4000:])
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
