"""Errors about options: given where they do nothing, or named as the library names the argument behind them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from typer.core import TyperCommand

_CALL: ContextVar[Any] = ContextVar("_CALL", default=None)  # Click's, which is Typer's own or a package by version

#: Arguments of the library that go by another name than the parameter of a command that they come from.
_OPTIONS = {
    "n": "--steps",
    "patches": "--patch",
    "peers": "--peer",
    "q": "--solver",
    "source": "--data",
    "t": "--t",
    "x": "--input",
}


class Command(TyperCommand):
    """A command that can be asked, while it runs, what it was called with."""

    def invoke(self, ctx: Any) -> Any:
        before = _CALL.set(ctx)
        try:
            return super().invoke(ctx)
        finally:
            _CALL.reset(before)


def goes(where: str, holds: bool, *names: str) -> None:
    """Raises ValueError where one of these parameters was given and `holds` is false: nothing would become of it.

    where  of which `holds` says whether it is so, such as "with --local"
    """
    call = _CALL.get()
    if holds or call is None:
        return
    for name in names:
        source = call.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":  # its default, given in so many words, too
            raise ValueError(f"{_by_parameter()[name]}: found where it does nothing; allowed only {where}")


def by_option(message: str) -> str:
    """An error as it names an argument of the library, with the option of the running command in place of that."""
    name, colon, rest = message.partition(": ")
    options = _by_parameter()
    option = _OPTIONS.get(name, options.get(name))
    return f"{option}: {rest}" if colon and option in options.values() else message


@contextmanager
def called(**options: str) -> Iterator[None]:
    """Errors in here name these options for arguments: source="--input", say, where "source" is else --data."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        name, colon, rest = str(error).partition(": ")
        if colon and name in options:
            raise ValueError(f"{options[name]}: {rest}") from error
        raise


def _by_parameter() -> dict[str, str]:
    call = _CALL.get()
    return {} if call is None else {parameter.name: parameter.opts[0] for parameter in call.command.params}
