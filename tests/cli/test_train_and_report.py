"""`geodiff train` and `geodiff report`: what they print and write, and one-line errors."""

import json
from pathlib import Path

import pytest

from geodiff import learned
from geodiff.learned import load_network
from tests.cli.in_process import run


def test_train_writes_weights_that_load_and_goes_on(tmp_path: Path) -> None:
    arguments = ("train", "--data", "digits", "--out", tmp_path, "--width", 8, "--batch", 4, "--steps", 3, "--json")
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    denoiser = learned.load(document["weights"])
    assert denoiser.shape == (1, 8, 8)
    assert document["parameters"] == sum(parameter.numel() for parameter in denoiser.parameters())
    assert document["bytes"] == Path(document["weights"]).stat().st_size
    again = run(*arguments)
    assert "going on from" in again.stderr
    assert json.loads(again.stdout) == document


def test_train_refuses_other_settings_in_one_line(tmp_path: Path) -> None:
    arguments = ("train", "--data", "digits", "--out", tmp_path, "--width", 8, "--batch", 4, "--steps", 2)
    assert run(*arguments).exit_code == 0
    result = run(*arguments, "--seed", 1)
    assert result.exit_code == 2
    assert result.stderr.strip().splitlines()[-1].startswith("error: --seed: expected 0")


def test_report_refuses_weights_that_are_not_there(tmp_path: Path) -> None:
    result = run("report", "--data", "digits", "--net", tmp_path / "none.safetensors", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "shipped weights: mnist5k" in result.stderr
    assert not (tmp_path / "out").exists()


def test_report_writes_page_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # That its pictures can be drawn is for tests/report, where they are the same.
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, to, **_: to.write(b"drawn"))
    result = run("report", "--data", "digits", "--num", 4, "--out", tmp_path / "new/out", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((tmp_path / "new/out/report.json").read_text(encoding="utf-8"))
    assert (tmp_path / "new/out/report.html").is_file()
    table = run("report", "--data", "digits", "--num", 4, "--out", tmp_path / "new/out")
    assert table.exit_code == 0
    assert "held" in table.stdout


@pytest.mark.parametrize("method", ["kd", "dfno", "pd", "cd", "ct"])
def test_a_student_is_trained_and_goes_on(method: str, tmp_path: Path) -> None:
    pairs = ("--pairs", 1) if method in ("kd", "dfno") else ()
    few = ("--steps", 2, "--batch", 2, "--width", 8, *pairs, "--out", tmp_path)
    result = run("train", "--data", "digits", "--distill", method, *few, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["evaluations"] == (4 if method == "pd" else 1)
    assert load_network(document["weights"]).training_metadata["teacher"] == "optimal"
    again = run("train", "--data", "digits", "--distill", method, *few)
    assert "going on from" in again.stderr


def test_bad_students_are_one_line(tmp_path: Path) -> None:
    for options, names in (
        (("--distill", "best"), "--distill: found 'best'"),
        (("--distill", "kd", "--flow"), "--flow: "),
        (("--distill", "kd", "--teacher", "mnist5k"), "--teacher: expected a denoiser of points (1, 8, 8)"),
        (("--distill", "kd", "--teacher", "nowhere"), "nowhere"),
    ):
        result = run("train", "--data", "digits", *options, "--out", tmp_path)
        assert result.exit_code == 2
        assert names in result.stderr.strip().splitlines()[-1]
