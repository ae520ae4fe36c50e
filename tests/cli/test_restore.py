"""`geodiff restore`: what it prints and draws, held-out pictures, and one-line errors."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from geodiff.data import load, split
from geodiff.measure.restoration import METHODS, TASKS, Case, Setting
from tests import processes
from tests.cli.endings import last
from tests.cli.in_process import refusal, run, run_json

pytest.importorskip("torchmetrics", reason="torchmetrics is not installed: pip install optimal-denoiser[restore]")


@pytest.mark.parametrize("task", TASKS)
def test_every_task_with_every_method(task: str, tmp_path: Path) -> None:
    names = [*METHODS, "exact"]
    asked = [part for name in names for part in ("--method", name)]
    out = tmp_path / "r.png"
    found = run_json("restore", "--data", "digits", "--task", task, *asked, "--num", 3, "--steps", 8, "--out", out)
    assert [each["method"] for each in found["methods"]] == names
    assert [each["nfe"] for each in found["methods"]] == [8, 8, 8, 8, 0]
    assert (found["N"], found["holdout"], found["num"]) == (1697, 100, 3)
    assert all(key in found for key in ("psnr", "psnr_adjoint", "psnr_exact", "ssim", "nfe"))
    assert found["methods"][-1]["psnr"] == found["psnr_exact"]
    assert out.stat().st_size > 1000


def test_it_is_repeated_by_its_seed_and_shown_as_a_table() -> None:
    few = ("--data", "digits", "--num", 2, "--steps", 5)
    first, again, other = (run_json("restore", *few, "--seed", seed) for seed in (0, 0, 1))
    assert first["psnr"] == again["psnr"] != other["psnr"]
    shown = run("restore", *few)
    assert "exact posterior mean" in shown.stdout
    assert f"{first['psnr']:.2f} dB" in shown.stdout


def test_on_digits_that_nobody_has_seen_the_methods_keep_to_their_measured_places() -> None:
    """20 of docs/inverse.md's 100: near the exact posterior mean with the data as prior, above it with a network."""
    for task in TASKS:
        found = run_json("restore", "--task", task, "--num", 20)
        assert found["psnr"] > found["psnr_adjoint"] + 1.5
        assert found["psnr"] > found["psnr_exact"] - 2.5
        assert found["nfe"] == 40
        network = run_json("restore", "--task", task, "--num", 20, "--prior", "mnist5k-held100")
        assert network["psnr"] > max(found["psnr"], found["psnr_adjoint"] + 3)


def test_the_pictures_are_not_among_the_data() -> None:
    dataset = load("digits")
    case = Case(dataset, Setting(num=7, holdout=50))
    kept, held = split(len(dataset), 50)
    assert torch.equal(case.known, dataset.data[kept])
    assert set(case.rows.tolist()) <= set(held.tolist())
    assert len(set(case.rows.tolist())) == 7


@pytest.mark.filterwarnings("default:.*may have seen these pictures")
def test_weights_that_have_seen_the_pictures_are_told_of() -> None:
    result = run("restore", "--num", 1, "--steps", 2, "--prior", "mnist5k")
    assert result.exit_code == 0
    assert "warning: mnist5k may have seen these pictures" in result.stderr
    assert "not seen" not in result.stdout
    result = run("restore", "--num", 1, "--steps", 2, "--prior", "mnist5k-held100")
    assert result.exit_code == 0
    assert "warning" not in result.stderr


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("--task colour", "--task: found 'colour'; allowed inpaint, deblur, superres"),
        ("--method best", "--method: found 'best'; allowed diffpir"),
        ("--num 0", "--num: "),
        ("--num 101", "--num: "),
        ("--holdout 1797 --num 1", "--holdout: "),
        ("--sigma 0", "--sigma: "),
        ("--steps 0", "--steps: "),
        ("--prior nowhere.safetensors", "nowhere.safetensors"),
        ("--prior mnist5k", "--prior: expected a network of points (1, 8, 8)"),
        ("--out r.jpg", "--out"),
        ("--out nowhere/r.png", "--out"),
        ("--data flat.npy", "--data: expected pictures"),
        ("--data small.npy", "--data: expected pictures that SSIM's window of 11 pixels fits into"),
        ("--threads 0", "--threads: "),
    ],
)
def test_bad_input_is_one_line(line: str, names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "flat.npy", np.zeros((500, 7), dtype=np.float32))
    np.save(tmp_path / "small.npy", np.zeros((500, 1, 9, 5), dtype=np.float32))
    given = line.split()
    result = run("restore", *(given if "--data" in given else ["--data", "digits", *given]), "--json")
    assert names in refusal(result)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flat.npy", "small.npy"]


def test_the_smallest_pictures_that_have_an_ssim(tmp_path: Path) -> None:
    np.save(tmp_path / "small.npy", np.random.default_rng(0).integers(0, 256, (40, 1, 6, 6), dtype=np.uint8))
    found = run_json("restore", "--data", tmp_path / "small.npy", "--holdout", 3, "--num", 1, "--steps", 2)
    assert -1 <= found["ssim"] <= 1


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    out = tmp_path / "r.png"
    done = processes.run("restore", "--data", "digits", "--steps", 2, "--out", out, largest_file=3000)
    assert (done.returncode, last(done)) == (2, f"error: {out}: File too large")
    assert list(tmp_path.iterdir()) == []


def test_without_torchmetrics_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
    result = run("restore", "--data", "digits")
    assert result.exit_code == 2
    assert "pip install optimal-denoiser[restore]" in result.stderr
