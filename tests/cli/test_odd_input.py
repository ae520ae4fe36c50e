"""Numbers out of range, data that are hardly data, extras that are missing: found before the work, and named."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli.endings import last
from tests.processes import run

SAMPLE = ["sample", "--num", "16", "--steps", "40"]


@pytest.mark.parametrize(("command", "seed"), [(SAMPLE, 10**20), (["train"], -1), (["report"], 2**32)])
def test_seeds_out_of_range(command: list[object], seed: int) -> None:
    done = run(*command, "--seed", seed)
    assert done.returncode == 2
    assert "seed" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_samples_at_all(tmp_path: Path) -> None:
    out = tmp_path / "walk.safetensors"
    assert run("sample", "--num", 0, "--steps", 3, "--out", out).returncode == 0
    assert run("denoise", "--num", 0, "--sigma", 1).returncode == 0
    done = run("sample", "--num", 0, "--out", out, "--images", tmp_path / "a.png")
    assert (done.returncode, last(done)) == (
        2,
        "error: --num: expected an integer in range, found 0; allowed 1 or more",
    )


def test_more_samples_than_memory_holds(tmp_path: Path) -> None:
    done = run("sample", "--num", 10**12, "--steps", 3, "--out", tmp_path / "walk.safetensors")
    assert done.returncode == 2
    assert "not enough memory" in last(done)


def test_a_missing_extra_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'matplotlib'\", name='matplotlib')"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    out = tmp_path / "out"
    out.mkdir()
    for command in (
        ["sample", "--out", out / "a.safetensors", "--images", out / "a.png"],
        ["demo", "--out", out / "demo"],
    ):
        arguments = [sys.executable, "-m", "geodiff", *map(str, command)]
        done = subprocess.run(arguments, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "matplotlib" in last(done)
        assert "optimal-denoiser[plots]" in last(done)
    assert os.listdir(out) == []


def test_check_leaves_out_what_cannot_hold_the_data(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", (np.random.default_rng(0).standard_normal((60, 5)) * 1e5).astype(np.float32))
    done = run("check", "--data", tmp_path / "data.npy", "--sigma", 1000, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["left_out"] == ["uint8", "float16"]
    assert {row["dtype"] for row in document["rows"]} == {"bfloat16", "float32"}


@pytest.mark.parametrize("data", [np.zeros((20, 3)), np.ones((1, 3)), np.full((5, 1, 2, 2), 0.5)])
def test_a_report_needs_points_that_differ(data: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", data.astype(np.float32))
    done = run("report", "--data", tmp_path / "data.npy", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert last(done).startswith("error: --data: expected two points or more that differ")


def test_what_a_folder_holds_besides_is_said(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b.heic").write_text("x")
    done = run("info", "--data", tmp_path)
    assert done.returncode == 0
    assert last(done) == f"warning: {tmp_path}: 1 left out, neither data nor labels of a kind that is read: b.heic"
