"""What a user waits for before anything happens: the import, and help on the command line."""

import importlib
import subprocess
import sys

import pytest

from geodiff.cli import COMMANDS


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_takes_no_tenth_of_a_second_after_torch() -> None:
    code = "import time, torch; t = time.perf_counter(); import geodiff; print(time.perf_counter() - t)"
    assert min(float(python(code)) for _ in range(3)) < 0.1


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["no-such-command"]])
def test_help_and_version_do_not_wait_for_torch(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv[1:] = {arguments!r}\n"
        "from geodiff.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    assert python(code).splitlines()[-1] == "False"


def test_help_lists_the_first_line_of_every_command() -> None:
    for name, line in COMMANDS.items():
        command = getattr(importlib.import_module(f"geodiff.cli.{name}"), name)
        assert line == " ".join(command.__doc__.partition("\n\n")[0].split())

