"""The demo on a small part of its data: what it writes, and that it tells a wrong denoiser from a right one."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from geodiff import reference
from geodiff.cli import app
from geodiff.data import load
from geodiff.denoiser import OptimalDenoiser
from geodiff.measure import demo
from geodiff.schedules import karras
from geodiff.solvers.trajectory import Trajectory

MNIST = load("mnist5k")
PART = replace(MNIST, data=MNIST.data[::50], labels=None, name="a part of mnist5k")  # 100 digits of every class


def test_demo_writes_picture_trajectory_and_summary(tmp_path: Path) -> None:
    done: list[int] = []
    summary = demo.run(PART, tmp_path / "new" / "demo", num=4, steps=5, progress=lambda: done.append(1))
    out = tmp_path / "new" / "demo"
    assert sorted(path.name for path in out.iterdir()) == ["samples.png", "summary.json", "trajectory.safetensors"]
    assert np.asarray(Image.open(out / "samples.png").convert("L")).std() > 10, "the picture is blank"

    trajectory = Trajectory.load(out / "trajectory.safetensors")
    assert torch.equal(trajectory.sigmas, karras(5))
    assert trajectory.states.shape == (6, 4, 1, 28, 28)
    nearest = (trajectory.states[-1][:, None] - (PART.data / 127.5 - 1)).flatten(2).norm(dim=2).amin(1)
    assert (nearest < 1e-2).all(), "the optimal denoiser's samples are points of the data"

    assert json.loads((out / "summary.json").read_text(encoding="utf-8")) == json.loads(json.dumps(summary))
    assert (summary["N"], summary["d"], summary["B"], summary["steps"]) == (100, 784, 4, 5)
    assert summary["evaluations"] == len(done) == 9
    assert summary["threads"] == torch.get_num_threads()
    assert summary["ok"]
    each = summary["per_evaluation"]
    assert isinstance(each, list)
    assert summary["kernel_ms"] == median(entry["kernel_ms"] for entry in each)
    assert summary["torch_ms"] == median(entry["torch_ms"] for entry in each)
    assert summary["ratio"] == pytest.approx(summary["torch_ms"] / summary["kernel_ms"])
    assert summary["largest_error"] == max(entry["error"] for entry in each) <= 1e-5
    assert [entry["sigma"] for entry in each][:3] == pytest.approx(karras(5)[[0, 1, 1]].tolist(), rel=1e-6)


def test_demo_sees_a_wrong_denoiser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(OptimalDenoiser):
        def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            return super().forward(x, sigma) * (1 + 2e-5)

    monkeypatch.setattr(demo, "OptimalDenoiser", Wrong)
    result = CliRunner().invoke(
        app, ["demo", "--data", "digits", "--num", "2", "--steps", "2", "--out", str(tmp_path), "--json"]
    )
    assert result.exit_code == 1, result.output
    summary = json.loads(result.stdout)
    assert not summary["ok"]
    assert 1.9e-5 < summary["largest_error"] < 2.1e-5


def test_a_summary_of_answers_that_are_not_finite_is_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "two_product", lambda x, *_: x * torch.nan)
    summary = demo.run(PART, tmp_path, num=2, steps=2)
    assert summary["largest_error_of_torch"] == torch.inf
    assert summary["ok"]
    written = (tmp_path / "summary.json").read_text(encoding="utf-8")
    assert json.loads(written, parse_constant=pytest.fail)["largest_error_of_torch"] is None


def test_demo_of_points_that_are_no_pictures_stops_before_it_starts(tmp_path: Path) -> None:
    np.save(tmp_path / "points.npy", np.zeros((5, 7), dtype=np.float32))
    result = CliRunner().invoke(app, ["demo", "--data", str(tmp_path / "points.npy"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "no pictures" in result.stderr
    assert not (tmp_path / "out").exists()


def test_demo_table(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--data", "digits", "--num", "2", "--steps", "2", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    for expected in ("3 evaluations", "geodiff (", "PyTorch float32, two products", "ratio", "ok"):
        assert expected in result.stdout
