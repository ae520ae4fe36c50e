"""`geodiff train` and `geodiff report`: what they print and write, and one-line errors."""

import json
from pathlib import Path

from typer.testing import CliRunner, Result

from geodiff import learned
from geodiff.cli import app


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


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
    assert result.stderr.strip().splitlines()[-1].startswith("error: seed: expected 0")


def test_report_refuses_weights_that_are_not_there(tmp_path: Path) -> None:
    result = run("report", "--data", "digits", "--net", tmp_path / "none.safetensors", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "shipped weights: mnist5k" in result.stderr
    assert not (tmp_path / "out").exists()


def test_report_writes_page_and_numbers(tmp_path: Path) -> None:
    result = run("report", "--data", "digits", "--num", 4, "--out", tmp_path / "new/out", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((tmp_path / "new/out/report.json").read_text(encoding="utf-8"))
    assert (tmp_path / "new/out/report.html").is_file()
    table = run("report", "--data", "digits", "--num", 4, "--out", tmp_path / "new/out")
    assert table.exit_code == 0
    assert "held" in table.stdout
