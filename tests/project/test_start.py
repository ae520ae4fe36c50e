"""What a user waits for before anything happens: the import, and help on the command line."""

import importlib
import subprocess
import sys

import pytest

from geodiff.cli.commands import COMMANDS


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


# In time of the processor, so that what else the machine does is not counted; what is imported lies in memory by then.
def test_import_takes_no_tenth_of_a_second_after_torch() -> None:
    code = "import time, torch; t = time.process_time(); import geodiff; print(time.process_time() - t)"
    assert any(float(python(code)) < 0.1 for _ in range(3))


def test_help_takes_no_second() -> None:
    code = (
        "import sys, time; sys.argv[1:] = ['--help']\n"
        "from geodiff.cli import main\n"
        "try: main()\n"
        "except SystemExit: print(time.process_time())"
    )
    assert any(float(python(code).splitlines()[-1]) < 1 for _ in range(3))


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
