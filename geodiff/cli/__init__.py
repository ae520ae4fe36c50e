"""The command `geodiff`: one module per subcommand, registered in `app`.

Imports from everything; nothing imports from here.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geodiff.cli.commands import app

__all__ = ["app", "main"]

_AGAIN = 0.5  # seconds
_heard: int | None = None  # the signal that asked for the end
_SAID = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "terminated: the terminal is gone"}


class _Stopped(BaseException):
    """A signal asks the command to end. Not KeyboardInterrupt, which others catch and say in words of their own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from geodiff.cli.commands import app

    return app


def _stop_at_once(number: int, _frame: FrameType | None) -> None:
    """While modules are imported: some swallow what is raised meanwhile, and nothing has been written yet."""
    _end(number)


def _stop(number: int, _frame: FrameType | None) -> None:
    global _heard
    _heard = number
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, lambda *_: _stop_again(number))
        signal.setitimer(signal.ITIMER_REAL, _AGAIN, _AGAIN)
    raise _Stopped(number)


def _stop_again(number: int) -> None:
    """Python drops what is raised in the callback of a weak reference, say, of which each import has one."""
    if _stopped(sys.exception()) is None:  # else it is on its way, and somebody is tidying up
        raise _Stopped(number)


def _stopped(error: BaseException | None) -> _Stopped | None:
    """The signal that an error came of, if any: a compiled module that is being imported makes an ImportError of it."""
    chain = [error]
    for error in chain:  # grows; each error once, for its cause is most often its context, too
        if isinstance(error, _Stopped):
            return error
        if error is not None:
            chain += [other for other in (error.__cause__, error.__context__) if other not in chain]
    return None


def ending() -> bool:
    """Whether a signal has been heard: what fails from here on fails because of it.

    Compiled code may make an error of its own, without a cause, of what is raised while it calls Python: matplotlib's
    "Invalid bounding box".
    """
    return _heard is not None


def may_write() -> None:
    """From here on a signal lets the command clean up before it ends. Nothing changes without `main`, which listens."""
    for name in _SAID:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is _stop_at_once:
            signal.signal(number, _stop)


def _listen(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for name in _SAID:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, handler)


def main() -> None:
    """Runs the command line. Exit codes: 0 done, 1 a contract is broken, 2 bad input, 3 a rank is gone, 128 + n by
    signal n (130: Ctrl-C, 141: whoever read the output is gone, 143: kill). What it writes is whole or not there.
    """
    _listen(_stop_at_once)
    for stream in (sys.stdout, sys.stderr):
        # A file's name or a sigma that the output cannot show is no reason to lose the result; \uXXXX is JSON, too.
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        from geodiff.cli.commands import app  # here, where signals are heard

        app()  # imports the command's module, which takes seconds, and calls may_write
    except BaseException as error:
        done = isinstance(error, SystemExit) and error.code in (0, None)
        if _heard is not None and not done:
            _end(_heard)
        raise
    finally:
        _listen(signal.SIG_IGN)  # too late to stop anything
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)


def _end(number: int) -> None:
    with suppress(OSError, AttributeError):  # no standard error, or none that takes anything
        print(_SAID[signal.Signals(number).name], file=sys.stderr, flush=True)
    # Not sys.exit: a thread or a half-imported module could hold it up, and all files are whole or gone by now.
    os._exit(128 + number)
