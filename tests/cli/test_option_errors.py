"""Options that nothing would become of are refused, and errors name the option that was given."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from geodiff.cli import app
from geodiff.cli.option_errors import by_option, called, goes

DISTILL = "train --data digits --distill cd"
WITHOUT_EFFECT = [
    (f"{DISTILL} --target optimal", "--target", "without --distill"),
    (f"{DISTILL} --wide 0.5", "--wide", "without --distill"),  # the default, but given
    (f"{DISTILL} --bfloat16", "--bfloat16", "without --distill"),
    (f"{DISTILL} --save-every 1", "--save-every", "without --distill"),
    (f"{DISTILL} --flow", "--flow", "without --distill"),
    (f"{DISTILL} --pairs 5", "--pairs", "with --distill kd or dfno"),
    ("train --distill ct --teacher nope", "--teacher", "with another method than ct"),
    ("train --teacher nope", "--teacher", "with --distill"),
    ("train --pairs 5", "--pairs", "with --distill"),
    ("bench --trajectory --sigma 1", "--sigma", "without --trajectory"),
    ("bench --trajectory --backend cpu", "--backend", "without --trajectory"),
    ("bench --trajectory --peer naive", "--peer", "without --trajectory"),
    ("bench --peaks --backend cpu", "--backend", "without --peaks"),
    ("bench --peaks --peer naive", "--peer", "without --peaks"),
    ("bench --kind ls", "--kind", "with --local"),
    ("bench --peaks --patch 3", "--patch", "with --local"),
    ("bench --cpu-time", "--cpu-time", "with --local"),
    ("bench --local --isa portable", "--isa", "without --local"),
    ("bench --backend reference --isa portable", "--isa", "with --backend cpu"),
    ("check --published --backend cuda", "--backend", "without --published"),
    ("check --published --tol 1e-3", "--tol", "without --published"),
    ("sample --shard 4", "--shard", "where --out is a folder"),
    ("sample --out folder --keep end", "--keep", "where --out is a file"),
    ("sample --out folder --images s.png", "--images", "where --out is a file"),
    ("denoise --sigma 1 --num 2 --input x.npy", "--num", "without --input"),
    ("restore --method exact --steps 3", "--steps", "with another method than exact"),
    ("restore --prior mnist5k --tol 1e-3", "--tol", "with --prior optimal"),
]


def error_of(line: str) -> str:
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (message,) = result.stderr.strip().splitlines()
    return message


@pytest.mark.parametrize(("line", "option", "where"), WITHOUT_EFFECT, ids=[line for line, *_ in WITHOUT_EFFECT])
def test_an_option_that_does_nothing_is_refused(
    line: str, option: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert error_of(line) == f"error: {option}: found where it does nothing; allowed only {where}"
    assert not list(tmp_path.iterdir())


def test_bench_has_one_mode() -> None:
    assert error_of("bench --peaks --local") == "error: --peaks: found together with --local, allowed one of them"
    assert error_of("bench --peaks --trajectory").startswith("error: --peaks: found together with --trajectory")
    assert error_of("bench --local --trajectory").startswith("error: --trajectory: found together with --local")


def test_a_files_name_is_no_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    assert error_of("denoise --sigma 1 --data data").startswith("error: data: ")


def test_a_time_without_a_velocity_is_named() -> None:
    line = "deviation --net mnist5k --num 1 --t 2"
    assert CliRunner().invoke(app, line.split()).stderr.strip().splitlines()[-1].startswith("error: --t: expected")


def test_outside_of_a_command_nothing_was_given() -> None:
    goes("never", False, "num")
    assert by_option("num: expected 1") == "num: expected 1"
    with pytest.raises(ValueError, match=r"^--input: no such"), called(source="--input"):
        raise FileNotFoundError("source: no such file")
