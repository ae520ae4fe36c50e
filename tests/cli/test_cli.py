"""The command line: what it prints and writes, one-line errors with their exit codes, and no half-written file."""

import importlib.metadata
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from geodiff import backends, reference
from geodiff.data import load
from geodiff.measure import check
from geodiff.solvers import SOLVERS, trajectory
from geodiff.solvers.trajectory import Trajectory
from tests.cli.in_process import refusal, run, run_json

COMMANDS = (
    "info",
    "sample",
    "denoise",
    "check",
    "demo",
    "train",
    "report",
    "restore",
    "deviation",
    "calibrate",
    "convert",
)
DIGITS = load("digits").data


def test_version() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("geodiff 0.")


def test_no_command_lists_them_all() -> None:
    assert all(command in run().output for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_data_seed_and_json(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert all(option in result.stdout for option in ("--data", "--seed", "--json", "--help"))


def test_info() -> None:
    document = run_json("info", "--data", "digits")
    assert document["torch"] == importlib.metadata.version("torch")
    assert document["machine"]["threads"] == torch.get_num_threads()
    assert {name: entry["detail"] for name, entry in document["backends"].items()} == backends.available()
    assert all(entry["detail"] for entry in document["backends"].values()), "a missing backend needs its reason"
    expected = {"name": "digits", "N": 1797, "shape": [1, 8, 8], "dtype": "uint8", "classes": 10, "bytes": 1797 * 64}
    assert expected.items() <= document["data"].items()
    text = run("info").stdout
    assert all(name in text for name in document["backends"])


def test_sample_writes_a_trajectory_that_its_seed_repeats(tmp_path: Path) -> None:
    arguments = ("sample", "--num", 3, "--steps", 5, "--images", tmp_path / "s.png")
    document = run_json(*arguments, "--out", tmp_path / "a.safetensors", "--seed", 1)
    run_json(*arguments, "--out", tmp_path / "b.safetensors", "--seed", 1)
    run_json(*arguments, "--out", tmp_path / "c.safetensors", "--seed", 2)
    first, again, other = (Trajectory.load(tmp_path / f"{name}.safetensors") for name in "abc")
    assert torch.equal(first.states, again.states)
    assert not torch.equal(first.states, other.states)
    assert first.states.shape == (6, 3, 1, 8, 8)
    assert first.sigmas.tolist() == document["sigmas"]
    assert document["evaluations"] == 9
    assert first.metadata.items() >= {"data": "digits", "solver": "heun", "schedule": "karras", "seed": "1"}.items()
    assert (tmp_path / "s.png").stat().st_size > 0


def test_sample_options_reach_the_schedule_and_solver(tmp_path: Path) -> None:
    levels = ("--schedule", "exponential", "--sigma-min", 0.1, "--sigma-max", 10, "--steps", 3)
    document = run_json("sample", *levels, "--num", 1, "--solver", "euler", "--out", tmp_path / "t.safetensors")
    assert document["sigmas"] == pytest.approx([10, 1, 0.1, 0])
    assert document["evaluations"] == 3
    start = Trajectory.load(tmp_path / "t.safetensors").states[0]
    assert 5 < start.std() < 15, "the noise starts at sigma_max"


def test_denoise_given_points(tmp_path: Path) -> None:
    x = torch.randn(2, 1, 8, 8)
    np.save(tmp_path / "x.npy", x.numpy())
    out = tmp_path / "r.safetensors"
    document = run_json("denoise", "--sigma", 0.5, "--input", tmp_path / "x.npy", "--topk", 3, "--out", out)
    exact = reference.posterior(x.double(), DIGITS, 0.5, topk=3)
    written = load_file(out)
    torch.testing.assert_close(written["mean"].double(), exact.mean, rtol=0, atol=1e-5 * float(exact.mean.norm()))
    torch.testing.assert_close(written["input"], x)
    assert written["indices"].tolist() == exact.indices.tolist()
    for point, row in enumerate(document["points"]):
        assert row["indices"] == exact.indices[point].tolist()
        assert row["log_prob"] == pytest.approx(float(exact.log_prob[point]), abs=1e-3, rel=1e-6)
        assert row["ess"] == pytest.approx(float(exact.ess[point]), rel=1e-4)
        assert row["moved"] == pytest.approx(float((exact.mean[point] - x[point]).norm()), rel=1e-4)


def test_denoise_takes_uint8_points_as_pixels(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", DIGITS[5:7].numpy())
    run_json("denoise", "--sigma", 1e-3, "--input", tmp_path / "x.npy", "--out", tmp_path / "r.npy")
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "r.npy")), DIGITS[5:7] / 127.5 - 1)


def test_denoise_noisy_data_points(tmp_path: Path) -> None:
    shown = run("denoise", "--sigma", 0.3, "--num", 25)
    assert shown.exit_code == 0, shown.output
    assert "and 5 more" in shown.stdout
    first, again, other = (run_json("denoise", "--sigma", 0.3, "--num", 3, "--seed", seed) for seed in (1, 1, 2))
    assert first == again != other
    assert all(row["moved"] == pytest.approx(0.3 * 8, rel=0.5) for row in first["points"])  # |z| = 8 for d = 64


def test_check_passes_and_lists_its_rows() -> None:
    arguments = ("check", "--limit", 20, "--sigma", 0.1, "--sigma", 10)
    document = run_json(*arguments)
    assert document["ok"]
    assert document["data"].startswith("digits (a random 20 of")
    assert set(document["rows"][0]) == {
        *("backend", "isa", "dtype", "sigma", "B", "N", "d", "error", "log_prob_error", "ok")
    }
    assert {row["sigma"] for row in document["rows"]} == {0.1, 10}
    table = run(*arguments, "--backend", "reference")
    assert table.exit_code == 0
    assert all(word in table.stdout for word in ("reference", "bfloat16", "uint8", "ok"))
    assert "cpu" not in table.stdout


def test_check_exits_1_when_a_contract_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = check.CheckRow("cpu", "avx2", "uint8", 0.1, 7, 20, 64, float("inf"), 0.0, False)
    monkeypatch.setattr(check, "run", lambda *_, **__: [broken])
    table = run("check")
    assert table.exit_code == 1
    assert "1 failed" in table.stdout
    document = run("check", "--json")
    assert document.exit_code == 1
    assert json.loads(document.stdout)["rows"][0]["error"] is None, "JSON has no infinity"


@pytest.mark.parametrize("solver", [*SOLVERS, "one-parameter:0.75"])
def test_sample_with_every_solver(solver: str, tmp_path: Path) -> None:
    out = tmp_path / "t.safetensors"
    document = run_json("sample", "--num", 1, "--steps", 3, "--solver", solver, "--out", out)
    assert document["solver"] == solver
    assert Trajectory.load(out).metadata["solver"] == solver
    saved = run_json("sample", "--num", 1, "--steps", 3, "--solver", solver, "--afs", "--out", out)
    assert saved["evaluations"] == document["evaluations"] - 1
    assert saved["afs"] is True


BAD_INPUT = [
    ("info --data nowhere", "nowhere"),
    ("sample --data damaged.npy", "damaged.npy"),
    ("sample --data nowhere.npy", "nowhere.npy"),
    ("sample --out nowhere/t.safetensors", "--out"),
    ("sample --out t.pt", "--out"),
    ("sample --images s.jpg", "--images"),
    ("sample --data flat.npy --images s.png", "no pictures"),
    ("sample --solver rk9", "--solver: "),
    ("sample --solver one-parameter:2", "--solver: "),
    ("sample --solver one-parameter:x", "--solver: "),
    ("sample --steps 1 --afs", "--afs: "),
    ("sample --schedule linear", "--schedule"),
    ("sample --schedule edm --rho 3", "--rho"),
    ("sample --sigma-min 5 --sigma-max 4", "--sigma-min: "),
    ("sample --steps 0", "--steps"),
    ("sample --num -1", "--num: "),
    ("sample --backend tpu", "--backend: "),
    ("sample --tol -1", "--tol: "),
    ("sample --threads 0", "--threads: "),
    ("sample --threads 999999999", "--threads: "),
    ("denoise --sigma 0", "--sigma: "),
    ("denoise --sigma nan", "--sigma: "),
    ("denoise --sigma 1 --topk -1", "--topk: "),
    ("denoise --sigma 1 --topk 9999", "--topk: "),
    ("denoise --sigma 1 --num 2 --input flat.npy", "--num: "),
    ("denoise --sigma 1 --input flat.npy", "--input: "),
    ("denoise --sigma 1 --input nowhere.npy", "--input: "),
    ("denoise --sigma 1 --data nowhere.npy", "--data: "),
    ("denoise --sigma 1 --out r.txt", "--out"),
    ("check --backend tpu", "--backend: "),
    ("check --limit 0", "--limit: "),
    ("convert --data digits --out a.npy --limit 0", "--limit: "),
    ("bench --data digits --peer nobody", "--peer: "),
    ("bench --batch 0", "--batch"),
    ("bench --trajectory --batch 16 --batch -2", "--batch"),
    ("bench --local --batch 0", "--batch"),
    ("bench --isa mmx", "--isa"),
    ("check --sigma 0", "--sigma: "),
    ("deviation --net flow --data digits --num 0", "--num: "),
    ("deviation --net flow --data digits --steps 0", "--steps: "),
    ("deviation --net flow --data digits --tau 0.5 --tau 2", "--tau: "),
    ("deviation --net nowhere --data nowhere --t 0.5 --t 0", "--t: "),
    ("deviation --net nowhere --data nowhere --t nan", "--t: "),
    ("deviation --net nowhere --data nowhere --t 1.5", "--t: "),
    ("calibrate --net mnist5k --num 0", "--num: "),
    ("calibrate --net nowhere --data nowhere --patch 3 --patch 0", "--patch: "),
    ("calibrate --net mnist5k --patch 3 --patch 4", "--patch: "),
    ("calibrate --net mnist5k --kind els_torus --patch 29", "--patch: "),
    ("calibrate --net mnist5k --steps 0", "--steps: "),
    ("calibrate --net nowhere --out k.npy", "--out: "),
    ("calibrate --net nowhere --out nowhere/k.json", "--out: "),
    ("demo --data flat.npy", "no pictures"),
]


@pytest.mark.parametrize(("line", "names"), BAD_INPUT, ids=[line for line, _ in BAD_INPUT])
def test_bad_input_is_one_line_and_exit_code_2(
    line: str, names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.npy").write_bytes(b"\x93NUMPY\x01\x00 nothing more")
    np.save(tmp_path / "flat.npy", np.zeros((5, 7), dtype=np.float32))
    before = sorted(tmp_path.rglob("*"))
    result = run(*line.split(), "--json")
    assert names in refusal(result)
    assert "levels and sizes" not in result.stderr, "the bar had begun"
    assert sorted(tmp_path.rglob("*")) == before


def test_interrupt_leaves_the_old_file_and_no_half_written_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "t.safetensors"
    out.write_text("the old one")

    def interrupted(tensors: object, path: Path, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(trajectory, "save_file", interrupted)
    result = run("sample", "--num", 1, "--steps", 2, "--out", out)
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["t.safetensors"]
    assert out.read_text() == "the old one"
