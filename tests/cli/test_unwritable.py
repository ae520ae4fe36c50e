"""Disks that are full and places that cannot be written to: one line that names the place, and nothing half written."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.cli.endings import check_files, last
from tests.processes import run

SAMPLE = ["sample", "--num", "16", "--steps", "40"]


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("walk.safetensors", SAMPLE),
        ("denoised.safetensors", ["denoise", "--sigma", 0.5, "--num", 500]),
        ("denoised.npy", ["denoise", "--sigma", 0.5, "--num", 500]),
    ],
)
@pytest.mark.parametrize("size", [0, 20_000])
def test_a_full_disk_is_named(name: str, command: list[object], size: int, tmp_path: Path) -> None:
    done = run(*command, "--out", tmp_path / name, largest_file=size)
    assert done.returncode == 2
    assert last(done) == f"error: {tmp_path / name}: File too large"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("command", ["demo", "train", "report"])
def test_a_full_disk_leaves_nothing_half_written(command: str, tmp_path: Path) -> None:
    data = tmp_path / "data.npy"
    np.save(data, np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8))
    options = {
        "demo": ["--steps", 2, "--num", 4],
        "train": ["--steps", 2, "--batch", 2, "--width", 8],
        "report": ["--num", 2],
    }
    out = tmp_path / "out"
    done = run(command, "--data", data, "--out", out, *options[command], largest_file=1500)
    assert done.returncode == 2
    assert f"error: {out}" in last(done)
    assert last(done).endswith("File too large")
    assert not list(out.rglob(".*"))


def test_a_folder_that_cannot_be_written_to_is_found_before_the_work(tmp_path: Path) -> None:
    if os.access("/proc", os.W_OK) and os.getuid() == 0:
        target = Path("/proc/self/walk.safetensors")  # where nobody makes files, root included
    else:
        target = tmp_path / "walk.safetensors"
        tmp_path.chmod(0o500)
    done = run(*SAMPLE, "--out", target)
    tmp_path.chmod(0o700)
    assert done.returncode == 2
    assert str(target.parent) in last(done)


@pytest.mark.parametrize(
    "command", [SAMPLE, ["denoise", "--sigma", 1], ["bench"], ["restore"], ["calibrate", "--net", "x"]]
)
def test_a_folder_in_place_of_a_file(command: list[object], tmp_path: Path) -> None:
    suffix = {"bench": ".json", "calibrate": ".json", "restore": ".png"}.get(str(command[0]), ".safetensors")
    (tmp_path / f"out{suffix}").mkdir()
    done = run(*command, "--out", tmp_path / f"out{suffix}")
    assert (done.returncode, last(done)) == (
        2,
        f"error: --out: expected the name of a file, found the folder {tmp_path / f'out{suffix}'}",
    )


@pytest.mark.parametrize("command", ["demo", "train", "report"])
def test_a_file_in_place_of_a_folder(command: str, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    done = run(command, "--data", "digits", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert str(tmp_path / "out") in last(done)


@pytest.mark.heavy
@pytest.mark.parametrize("size", [10 * 3**power for power in range(12)])
@pytest.mark.parametrize("command", ["sample", "denoise", "demo", "train", "restore", "report"])
def test_disks_of_every_size(command: str, size: int, tmp_path: Path) -> None:
    shorter = {"sample": [*SAMPLE, "--out", "walk.safetensors"], "denoise": ["denoise", "--sigma", 3, "--out", "a.npy"]}
    shorter["demo"] = ["demo", "--data", "digits", "--out", "demo", "--steps", 3]
    shorter["train"] = ["train", "--data", "digits", "--out", "train", "--width", 8, "--steps", 4, "--save-every", 2]
    shorter["restore"] = ["restore", "--data", "digits", "--steps", 2, "--out", "restored.png"]
    shorter["report"] = ["report", "--data", "digits", "--out", "report", "--num", 4]
    done = run(*shorter[command], folder=tmp_path, largest_file=size)
    assert done.returncode in (0, 2), done.stderr
    if done.returncode == 2:
        assert "File too large" in last(done)
    check_files(tmp_path)
    assert not [path for path in tmp_path.rglob(".*.part*")]
