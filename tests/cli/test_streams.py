"""Pipes whose reader is gone, outputs that are full or closed, and encodings that cannot show everything."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import processes

GEODIFF = [sys.executable, "-m", "geodiff"]


def run(*arguments: object, stdout: object) -> subprocess.CompletedProcess[str]:
    command = [*GEODIFF, *map(str, arguments)]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)  # type: ignore[call-overload]


def test_a_pipe_whose_reader_is_gone(tmp_path: Path) -> None:
    """In an interpreter of its own, and in others whose output becomes such a pipe."""
    read, write = os.pipe()
    os.close(read)
    done = run("info", stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr.replace("\n", "")) == (141, "")
    code = """
        import os, runpy
        read, write = os.pipe()
        os.close(read)
        os.dup2(write, 1)
        os.close(write)
        runpy.run_module("geodiff", run_name="__main__", alter_sys=True)
    """
    for command in (["info", "--json"], ["denoise", "--data", "digits", "--sigma", "1", "--num", "300", "--json"]):
        done = processes.run(*command, code=code)
        assert (done.returncode, done.stderr.replace("\n", "")) == (141, ""), command


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_an_output_that_is_full() -> None:
    with open("/dev/full", "w") as full:
        done = run("info", stdout=full)
    assert (done.returncode, done.stderr.strip()) == (2, "error: No space left on device")


def test_outputs_that_cannot_show_everything(tmp_path: Path) -> None:
    """From the start of an interpreter in ASCII, and in others with streams as it would have made them."""
    data = tmp_path / "σ données.npy"
    np.save(data, np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32))
    arguments = ["denoise", "--sigma", "1", "--data", str(data)]
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    table = subprocess.run([*GEODIFF, *arguments], capture_output=True, check=False, env=env)
    assert (table.returncode, table.stderr) == (0, b"")
    code = """
        import runpy, sys
        sys.stdout.reconfigure(encoding=sys.argv[1], errors="strict")
        del sys.argv[1]
        runpy.run_module("geodiff", run_name="__main__", alter_sys=True)
    """
    for encoding in ("ascii", "latin-1", "utf-8"):
        for form in ([], ["--json"]):
            done = processes.run(encoding, *arguments, *form, code=code)
            assert (done.returncode, done.stderr) == (0, ""), (encoding, form)
            if form and encoding != "latin-1":  # which is not what is read here
                assert json.loads(done.stdout)["data"] == "σ données.npy"


def test_streams_that_are_closed(tmp_path: Path) -> None:
    """From the start of an interpreter, and in others with streams as it would have made them: none."""
    out = tmp_path / "walk.safetensors"
    arguments = ["sample", "--data", "digits", "--steps", "2", "--num", "2", "--out", str(out)]
    shell = f'"{sys.executable}" -m geodiff {shlex.join(arguments)} >&- 2>&-'
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert out.exists()
    code = """
        import os, runpy, sys
        name = sys.argv.pop(1)
        os.close(("stdin", "stdout", "stderr").index(name))
        setattr(sys, name, None)
        setattr(sys, f"__{name}__", None)
        runpy.run_module("geodiff", run_name="__main__", alter_sys=True)
    """
    for name in ("stdin", "stdout", "stderr"):
        out.unlink()
        done = processes.run(name, *arguments, code=code)
        assert done.returncode == 0, (name, done.stderr)
        assert out.exists()
