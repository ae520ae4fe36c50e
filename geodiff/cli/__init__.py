"""The command `geodiff`: one module per subcommand, registered in `app`.

Imports from everything; nothing imports from here.
"""

import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geodiff.cli.app import app

__all__ = ["app", "main"]

_SAID = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "terminated: the terminal is gone"}


class _Stopped(BaseException):
    """A signal asks the command to end. Not KeyboardInterrupt, which others catch and say in words of their own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from geodiff.cli.app import app

    return app


def _stop(number: int, _frame: FrameType | None) -> None:
    raise _Stopped(number)


def main() -> None:
    """Runs the command line. Exit codes: 0 done, 1 a contract is broken, 2 bad input, 128 + n ended by signal n.

    (130: Ctrl-C, 141: whoever read the output is gone, 143: kill.) What a command writes is whole or not there.
    """
    names = [name for name in _SAID if hasattr(signal, name)]
    for name in names:
        if signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(getattr(signal, name), _stop)
    for stream in (sys.stdout, sys.stderr):
        # A file's name or a sigma that the output cannot show is no reason to lose the result; \uXXXX is JSON, too.
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        from geodiff.cli.app import app  # here: it takes seconds, in which signals are to be heard

        app()
    except _Stopped as stopped:
        _end(_SAID[signal.Signals(stopped.number).name], 128 + stopped.number)
    finally:
        for name in names:
            signal.signal(getattr(signal, name), signal.SIG_IGN)  # too late to stop anything


def _end(text: str, code: int) -> None:
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, AttributeError):
        pass
    # Not sys.exit: a thread or a half-imported module could hold it up, and all files are whole or gone by now.
    os._exit(code)
