"""Ctrl-C, SIGTERM and SIGKILL at any moment: the exit code, the word for it, and files that are whole or not there."""

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import typer

from geodiff import cli
from geodiff.cli.console import reports_errors
from tests.cli.endings import check_files
from tests.processes import run, started

LONG: dict[str, list[object]] = {
    "sample": ["sample", "--num", 64, "--steps", 400, "--out", "walk.safetensors", "--images", "walk.png"],
    "denoise": ["denoise", "--sigma", 3, "--num", 50_000, "--out", "denoised.safetensors"],
    "demo": ["demo", "--data", "digits", "--out", "demo", "--steps", 200],
    "train": ["train", "--data", "digits", "--out", "train", "--width", 8, "--batch", 8, "--save-every", 3],
    "report": ["report", "--data", "digits", "--out", "report", "--num", 64],
    "check": ["check"],
    "bench": ["bench", "--data", "digits", "--rounds", 100, "--out", "bench.json"],
    "restore": ["restore", "--method", "dps", "--num", 32, "--out", "restored.png"],
}
ENDS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated"), signal.SIGKILL: (-9, "")}


def check_end(command: str, number: signal.Signals, code: int | None, said: str, folder: Path) -> None:
    if code != 0:  # else it was done before
        assert (code, "Traceback" in said) == (ENDS[number][0], False), said
        assert said.strip().endswith(ENDS[number][1]), said
    check_files(folder)
    if number != signal.SIGKILL:
        assert not [path for path in folder.rglob(".*.part*")]


chance = random.Random(0)


@pytest.mark.parametrize(
    ("command", "number", "after"),
    # The processes have imported what they need: within a second each is at work.
    [(command, chance.choice(list(ENDS)), chance.uniform(0.1, 1.4)) for command in LONG for _ in range(2)],
)
def test_a_signal_at_some_moment(command: str, number: signal.Signals, after: float, tmp_path: Path) -> None:
    with started(*LONG[command], folder=tmp_path) as running:
        time.sleep(after)
        running.send_signal(number)
        _, said = running.communicate(timeout=20)
    check_end(command, number, running.process.exitcode, said, tmp_path)


def processor_time(process: int) -> float:
    """In seconds, of all its threads; infinite once it has ended."""
    try:
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return math.inf
    return math.inf if state == "Z" else (int(fields[10]) + int(fields[11])) / os.sysconf("SC_CLK_TCK")


def wait_until_it_has_worked(process: int, seconds: float) -> None:
    """Of the processor's time, so that the moment is the same on a machine that is busy with something else."""
    while processor_time(process) < seconds:
        time.sleep(0.01)


def stop_at(command: str, number: signal.Signals, after: float, folder: Path) -> None:
    """An interpreter of its own, so that a signal may reach it while it imports its modules."""
    arguments = [sys.executable, "-m", "geodiff", *map(str, LONG[command])]
    with subprocess.Popen(
        arguments, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until_it_has_worked(process.pid, after)
        process.send_signal(number)
        began = time.monotonic()
        _, said = process.communicate(timeout=60)
        assert time.monotonic() - began < 20
    check_end(command, number, process.returncode, said, folder)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", ENDS)
def test_a_signal_among_the_imports(number: signal.Signals, tmp_path: Path) -> None:
    stop_at("sample", number, 0.7, tmp_path)


LISTENING = """
    import os, signal, time, weakref
    from geodiff import cli

    cli._listen(cli._stop)
    interrupt = lambda *_: (os.kill(os.getpid(), signal.SIGINT), time.sleep(0.01))
    try:
        {DOES}
    except cli._Stopped as stopped:
        cli._end(stopped.number)
"""
DROPPED = """
        class Module: pass
        module = Module()
        lock = weakref.ref(module, interrupt)
        del module
        time.sleep(20)
"""
TIDYING = """
        try:
            interrupt()
        finally:
            time.sleep(1.5)
            print("tidy", flush=True)
"""


@pytest.mark.parametrize(("does", "said"), [(DROPPED, ""), (TIDYING, "tidy\n")], ids=["dropped", "tidying"])
def test_what_python_drops_is_raised_again_but_not_while_it_is_on_its_way(does: str, said: str) -> None:
    done = run(code=LISTENING.replace("{DOES}", does.strip()), timeout=15)
    assert (done.returncode, done.stdout) == (130, said), done.stderr
    assert done.stderr.endswith("interrupted\n")


# 51 moments of each command in all.
@pytest.mark.heavy
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("command", "number", "after"),
    [(command, number, chance.uniform(0.0, 3.0)) for command in LONG for number in [*ENDS] * 13],
)
def test_signals_at_random_moments(command: str, number: signal.Signals, after: float, tmp_path: Path) -> None:
    with started(*LONG[command], folder=tmp_path) as running:
        assert running.process.pid is not None
        wait_until_it_has_worked(running.process.pid, after)
        running.send_signal(number)
        _, said = running.communicate(timeout=20)
    check_end(command, number, running.process.exitcode, said, tmp_path)


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("command", "number", "after"),
    [(command, number, chance.uniform(0.1, 4.0)) for command in LONG for number in [*ENDS] * 4],
)
def test_and_from_the_start_of_the_interpreter(
    command: str, number: signal.Signals, after: float, tmp_path: Path
) -> None:
    stop_at(command, number, after, tmp_path)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The signals that `main` has ended by, with no signal heard so far and none listened to."""
    numbers: list[int] = []
    monkeypatch.setattr(cli, "_heard", None)
    monkeypatch.setattr(cli, "_listen", lambda _: None)
    monkeypatch.setattr(cli, "_end", numbers.append)
    return numbers


def run_main(app: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geodiff.cli.commands.app", app)
    with pytest.raises(SystemExit):
        cli.main()


def test_a_signal_that_an_import_made_an_error_of_is_still_a_signal(
    ended: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def app() -> None:
        try:
            try:
                cli._stop(signal.SIGTERM, None)
            except BaseException as error:  # as pybind11 does for what is raised while a module is set up
                raise ImportError("initialization failed") from error
        except ImportError:
            raise SystemExit(2) from None

    run_main(lambda: sys.exit(2), monkeypatch)
    assert ended == []
    run_main(app, monkeypatch)
    assert ended == [signal.SIGTERM]


def test_and_one_of_which_compiled_code_made_an_error_of_its_own(
    ended: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @reports_errors
    def command() -> None:
        with suppress(cli._Stopped):  # as matplotlib's C++ does while it asks for an array
            cli._stop(signal.SIGTERM, None)
        raise ValueError("Invalid bounding box")

    def app() -> None:
        try:
            command()
        except typer.Exit as left:
            raise SystemExit(left.exit_code) from None

    run_main(app, monkeypatch)
    assert ended == [signal.SIGTERM]
    assert "bounding box" not in capsys.readouterr().err
    run_main(lambda: sys.exit(0), monkeypatch)  # it was done before
    assert ended == [signal.SIGTERM]
