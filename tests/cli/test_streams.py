"""Pipes whose reader is gone, outputs that are full or closed, and encodings that cannot show everything."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

GEODIFF = [sys.executable, "-m", "geodiff"]


def run(*arguments: object, stdout: object) -> subprocess.CompletedProcess[str]:
    command = [*GEODIFF, *map(str, arguments)]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)  # type: ignore[call-overload]


def test_a_pipe_whose_reader_is_gone(tmp_path: Path) -> None:
    for command in (["info"], ["info", "--json"], ["denoise", "--sigma", "1", "--num", "300", "--json"]):
        read, write = os.pipe()
        os.close(read)
        done = run(*command, stdout=write)
        os.close(write)
        assert (done.returncode, done.stderr.replace("\n", "")) == (141, ""), command


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_an_output_that_is_full() -> None:
    with open("/dev/full", "w") as full:
        done = run("info", stdout=full)
    assert (done.returncode, done.stderr.strip()) == (2, "error: No space left on device")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_outputs_that_cannot_show_everything(encoding: str, form: list[str], tmp_path: Path) -> None:
    np.save(tmp_path / "σ données.npy", np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32))
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    data = tmp_path / "σ données.npy"
    done = subprocess.run(
        [*GEODIFF, "denoise", "--sigma", "1", "--data", data, *form], capture_output=True, check=False, env=env
    )
    assert (done.returncode, done.stderr) == (0, b"")
    if form:
        assert json.loads(done.stdout.decode(encoding))["data"] == "σ données.npy"


def test_streams_that_are_closed(tmp_path: Path) -> None:
    for redirect in (">&-", "2>&-", ">&- 2>&-", "<&-"):
        out = tmp_path / "walk.safetensors"
        shell = f'"{sys.executable}" -m geodiff sample --steps 2 --num 2 --out "{out}" {redirect}'
        done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (redirect, done.stderr)
        assert out.exists()
        out.unlink()
