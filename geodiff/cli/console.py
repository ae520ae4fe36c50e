"""What every command shares: results on standard output, all else on standard error, errors in one line."""

import functools
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from geodiff.base.errors import BackendUnavailable, DataError, RankLost
from geodiff.base.finite import finite
from geodiff.cli import ending
from geodiff.cli.option_errors import by_option
from geodiff.distributed import job

P = ParamSpec("P")
R = TypeVar("R")

_WIDTH_WITHOUT_TERMINAL = 120
_BAD_INPUT = (ValueError, TypeError, OSError, ImportError, BackendUnavailable, MemoryError)
_RANK_LOST = 3
_OUTPUT_GONE = 141  # 128 + SIGPIPE, as the system ends programs that write to a closed pipe


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Bad input becomes one line on standard error and exit code 2, a lost rank one and 3; Ctrl-C a word and 130.

    Warnings are one line on standard error, too. A reader of the output that is gone ends the command without a word.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning  # type: ignore[assignment]
                answer = command(*args, **kwargs)
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where a full disk or a closed pipe can still be told
            return answer
        except KeyboardInterrupt:
            _leave("interrupted", 130)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to tell at exit
            raise typer.Exit(_OUTPUT_GONE) from None
        except RankLost as error:
            _leave(f"error: {_sentence(error)}", _RANK_LOST)
        except _BAD_INPUT as error:
            _leave(f"error: {_sentence(error)}", 2)
        except RuntimeError as error:
            if "allocate memory" not in str(error) and "out of memory" not in str(error):
                raise
            _leave(f"error: not enough memory for what was asked ({_sentence(error)})", 2)

    return wrapped


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    if issubclass(category, UserWarning):
        note(f"warning: {message}")


def print_json(document: Mapping[str, object] | Sequence[object]) -> None:
    """The one thing that a command prints to standard output under --json. Numbers that JSON lacks become null."""
    unicode = getattr(sys.stdout, "encoding", None) in ("utf-8", "UTF-8")
    typer.echo(json.dumps(finite(document), indent=2, ensure_ascii=not unicode, allow_nan=False))


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would leave with exit code 1, which is check's."""
        raise BrokenPipeError


def print_table(title: str, table: Table) -> None:
    """To standard output, as wide as the terminal, or of a fixed width where there is none (a pipe, a log)."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    console = _Console(width=None if terminal else _WIDTH_WITHOUT_TERMINAL)
    # Not Table.title, which wraps at the width of the table.
    console.print(title, style="bold", markup=False, highlight=False)
    console.print(table)


def print_summary(title: str, document: Mapping[str, object], *, as_json: bool) -> None:
    """What was made, a line for each entry, or as the document that it is."""
    if as_json:
        print_json(document)
        return
    shown = table("", "")
    for key, value in document.items():
        shown.add_row(key, str(value))
    print_table(title, shown)


def table(*columns: str) -> Table:
    """An empty table in the one style of this package; numbers go into columns whose name ends in a space."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(columns), caption_justify="left")
    for column in columns:
        made.add_column(column.strip(), justify="right" if column.endswith(" ") else "left")
    return made


def under_torchrun(command: Callable[P, R]) -> Callable[P, R]:
    """The command as one of those that torchrun has started: their data are shared out, and the first alone prints."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        if job.size() == 1:
            return command(*args, **kwargs)
        with job.joined() as ranks:
            if ranks.rank == 0:
                return command(*args, **kwargs)
            with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
                return command(*args, **kwargs)

    return wrapped


def note(text: str) -> None:
    """A remark on standard error."""
    # Not markup: file names and shapes such as [B, 3] are full of brackets.
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


def progress_bar() -> Progress:
    """A bar on standard error, so that it is seen under --json too and never mixes with a result."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=job.ranks().rank > 0,
    )


def check_target(option: str, path: Path | None, *suffixes: str) -> None:
    """Raises before any work is done what writing `path` at the end would: no such folder, or a suffix not served."""
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{option}: expected a name in {', '.join(suffixes)}, found {path.name!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{option}: expected a file in an existing folder, found no folder {path.parent}")
    if path.is_dir():
        raise IsADirectoryError(f"{option}: expected the name of a file, found the folder {path}")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{option}: expected a folder that can be written to, found {path.parent}, which cannot")


def check_folder(option: str, path: Path) -> None:
    """Raises where a folder cannot be written to, or be made in the one that it lies in."""
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{option}: expected the name of a folder, found the file {path}")
    holder = path if path.is_dir() else path.parent
    if not holder.is_dir():
        raise FileNotFoundError(f"{option}: expected a folder in an existing one, found no folder {holder}")
    if not os.access(holder, os.W_OK):
        raise PermissionError(f"{option}: expected a folder that can be written to, found {holder}, which cannot")


def _leave(text: str, code: int) -> NoReturn:
    if not ending():  # else `main` says why
        note(text)
    raise typer.Exit(code) from None


def _sentence(error: BaseException) -> str:
    """One line: the system's errors say what failed in fields, ours in the message."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return f"not enough memory for what was asked ({error})"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, DataError) else by_option(text)  # that opens with the name of a file
