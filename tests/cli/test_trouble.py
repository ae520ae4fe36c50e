"""Disks that are full, terminals and pipes that are gone, numbers that are odd, signals at any moment."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

GEODIFF = [sys.executable, "-m", "geodiff"]
SAMPLE = ["sample", "--num", "16", "--steps", "40"]


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    text = {} if "stdout" in options else {"stdout": subprocess.PIPE}
    command = [*GEODIFF, *map(str, arguments)]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, **text, **options)  # type: ignore[call-overload]


def last(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-1]


def limited(size: int):
    """Files of this process may not grow beyond `size`, as on a disk that is full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


# ---- what cannot be written ----


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
    done = run(*command, "--out", tmp_path / name, preexec_fn=limited(size))
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
    done = run(command, "--data", data, "--out", out, *options[command], preexec_fn=limited(1500))
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


@pytest.mark.parametrize("command", [SAMPLE, ["denoise", "--sigma", 1], ["bench"]])
def test_a_folder_in_place_of_a_file(command: list[object], tmp_path: Path) -> None:
    suffix = ".json" if command[0] == "bench" else ".safetensors"
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


# ---- where results are printed ----


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
    assert (done.returncode, last(done)) == (2, "error: No space left on device")


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


# ---- odd numbers ----


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
    assert (done.returncode, last(done)) == (2, "error: num: expected an integer in range, found 0; allowed 1 or more")


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
        done = run(*command, env=env)
        assert done.returncode == 2
        assert "matplotlib" in last(done)
        assert "optimal-denoiser[plots]" in last(done)
    assert os.listdir(out) == []


# ---- data that are hardly data ----


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
    assert last(done).startswith("error: data: expected two points or more that differ")


def test_what_a_folder_holds_besides_is_said(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b.heic").write_text("x")
    done = run("info", "--data", tmp_path)
    assert done.returncode == 0
    assert last(done) == f"warning: {tmp_path}: 1 left out, neither data nor labels of a kind that is read: b.heic"


# ---- signals at any moment ----

LONG: dict[str, list[object]] = {
    "sample": ["sample", "--num", 64, "--steps", 400, "--out", "walk.safetensors", "--images", "walk.png"],
    "denoise": ["denoise", "--sigma", 3, "--num", 50_000, "--out", "denoised.safetensors"],
    "demo": ["demo", "--data", "digits", "--out", "demo", "--steps", 200],
    "train": ["train", "--data", "digits", "--out", "train", "--width", 8, "--batch", 8, "--save-every", 3],
    "report": ["report", "--data", "digits", "--out", "report", "--num", 64],
    "check": ["check"],
    "bench": ["bench", "--data", "digits", "--rounds", 100, "--out", "bench.json"],
}
ENDS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated"), signal.SIGKILL: (-9, "")}


def stopped(command: str, number: signal.Signals, after: float, folder: Path) -> tuple[int, str]:
    """Exit code and what was said by a command that got a signal `after` seconds from its first look at arguments."""
    with subprocess.Popen(
        [*GEODIFF, *map(str, LONG[command])], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(after)
        process.send_signal(number)
        began = time.monotonic()
        _, said = process.communicate(timeout=60)
        assert time.monotonic() - began < 20
    return process.returncode, said


def check_files(folder: Path) -> None:
    """Whatever has its final name is whole."""
    for path in folder.rglob("*"):
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                assert list(file.keys())
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".pt":
            import torch

            torch.load(path, weights_only=True)


def moments(count: int) -> list[tuple[str, signal.Signals, float]]:
    chance = random.Random(0)
    return [
        (command, number, chance.uniform(0.3, 9.0))
        for command in LONG
        for number in (chance.sample(list(ENDS), 1) if count == 1 else [*ENDS] * count)
    ]


def stop_at(command: str, number: signal.Signals, after: float, folder: Path) -> None:
    code, said = stopped(command, number, after, folder)
    if code != 0:  # else it was done before
        assert (code, "Traceback" in said) == (ENDS[number][0], False), said
        assert said.strip().endswith(ENDS[number][1]), said
    check_files(folder)
    if number != signal.SIGKILL:
        assert not [path for path in folder.rglob(".*.part*")]


@pytest.mark.parametrize(("command", "number", "after"), moments(1))
def test_a_signal_at_some_moment(command: str, number: signal.Signals, after: float, tmp_path: Path) -> None:
    stop_at(command, number, after, tmp_path)


@pytest.mark.heavy
@pytest.mark.parametrize(("command", "number", "after"), moments(17))
def test_signals_at_random_moments(command: str, number: signal.Signals, after: float, tmp_path: Path) -> None:
    stop_at(command, number, after, tmp_path)


@pytest.mark.heavy
@pytest.mark.parametrize("size", [10 * 3**power for power in range(12)])
@pytest.mark.parametrize("command", ["sample", "denoise", "demo", "train", "report"])
def test_disks_of_every_size(command: str, size: int, tmp_path: Path) -> None:
    shorter = {"sample": [*SAMPLE, "--out", "walk.safetensors"], "denoise": ["denoise", "--sigma", 3, "--out", "a.npy"]}
    shorter["demo"] = ["demo", "--data", "digits", "--out", "demo", "--steps", 3]
    shorter["train"] = ["train", "--data", "digits", "--out", "train", "--width", 8, "--steps", 4, "--save-every", 2]
    shorter["report"] = ["report", "--data", "digits", "--out", "report", "--num", 4]
    done = run(*shorter[command], cwd=tmp_path, preexec_fn=limited(size))
    assert done.returncode in (0, 2), done.stderr
    if done.returncode == 2:
        assert "File too large" in last(done)
    check_files(tmp_path)
    assert not [path for path in tmp_path.rglob(".*.part*")]
