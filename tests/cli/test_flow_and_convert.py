"""`geodiff train --flow`, `deviation` and `convert`: what they print and write, and one-line errors."""

import json
from pathlib import Path

import numpy as np

from geodiff import learned
from geodiff.data import load
from tests.cli.in_process import run

SMALL = ("--data", "digits", "--width", 8, "--batch", 4, "--steps", 3)


def test_a_flow_is_trained_compared_and_reported(tmp_path: Path) -> None:
    result = run("train", "--flow", "--target", "optimal", *SMALL, "--out", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    weights = json.loads(result.stdout)["weights"]
    assert isinstance(learned.load(weights), learned.LearnedFlow)
    few = ("--data", "digits", "--net", weights, "--num", 4)
    result = run("deviation", *few, "--t", 0.9, "--t", 0.2, "--tau", 0, "--tau", 1, "--steps", 10, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [row["t"] for row in document["path"]] == [0.9, 0.2]
    assert document["path"][1]["delta"] > 0.5  # it has learned nothing in 3 steps
    assert document["hybrid"][0]["distance"] > 0.1 > document["hybrid"][1]["distance"]
    assert "delta" in run("deviation", *few, "--t", 0.9, "--tau", 1, "--steps", 4).stdout
    result = run("report", *few, "--out", tmp_path / "report", "--json")
    assert result.exit_code == 0, result.output
    finding = next(one for one in json.loads(result.stdout)["findings"] if one["key"] == "flow-deviation")
    assert finding["held"] is not None
    assert finding["figures"]["flow"] is True
    assert len(finding["figures"]["delta"]) == len(finding["figures"]["t"])
    assert finding["figures"]["distance"][-1] < 1e-3
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert 'id="flow-deviation"' in page


def test_a_denoiser_is_compared_as_the_velocity_that_it_amounts_to(tmp_path: Path) -> None:
    weights = json.loads(run("train", *SMALL, "--out", tmp_path, "--json").stdout)["weights"]
    result = run("deviation", "--data", "digits", "--net", weights, "--num", 2, "--tau", 1, "--steps", 4, "--json")
    assert result.exit_code == 0, result.output
    result = run("deviation", "--data", "mnist5k", "--net", weights)
    assert result.exit_code == 2
    assert result.stderr.strip().splitlines()[-1].startswith("error: --net: expected a network of points (1, 28, 28)")


def test_an_unknown_target_is_one_line(tmp_path: Path) -> None:
    result = run("train", *SMALL, "--target", "best", "--out", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.strip().splitlines()[-1].startswith("error: --target: found 'best'; allowed")


def test_convert(tmp_path: Path) -> None:
    result = run("convert", "--data", "digits", "--out", tmp_path / "digits.npy", "--limit", 100, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["N"] == 100
    assert document["shape"] == [1, 8, 8]
    assert np.array_equal(np.load(tmp_path / "digits.npy"), load("digits").data[:100].numpy())
    assert "digits.npy" in run("convert", "--data", tmp_path / "digits.npy", "--out", tmp_path / "again.npy").stdout
    np.savez(tmp_path / "a.npz", features=np.zeros((2, 3), np.uint8), others=np.ones((3, 2), np.uint8))
    result = run("convert", "--data", tmp_path / "a.npz", "--out", tmp_path / "b.npy")
    assert result.exit_code == 2
    assert "keys: found features, others; expected one of" in result.stderr
    result = run("convert", "--data", tmp_path / "a.npz", "--key", "others", "--out", tmp_path / "b.npy", "--json")
    assert json.loads(result.stdout)["shape"] == [2]
    result = run("convert", "--data", "digits", "--key", "others", "--out", tmp_path / "b.npy")
    assert result.stderr.strip().splitlines()[-1].startswith("error: --key: found 'others', but 'digits' is no file")
    result = run("convert", "--data", tmp_path / "none.zip", "--out", tmp_path / "b.npy")
    assert result.exit_code == 2
    assert result.stderr.strip().splitlines()[-1].startswith("error: --data: no such file or folder")
