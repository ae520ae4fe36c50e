"""The commands and what they share, as one Typer application: a module is imported when its command is called."""

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from geodiff.base.version import VERSION
from geodiff.cli import may_write

#: Each command and what `geodiff --help` says of it, the first line of its docstring. They stand here too because
#: PyTorch takes seconds to import, and help and version numbers need none of it.
COMMANDS = {
    "info": "Versions, backends with the reason one is missing and how one is chosen, instruction sets, threads, GPUs.",
    "sample": "Draw samples; write the trajectory: sigmas, states and denoiser outputs; to a folder, samples alone.",
    "denoise": "Denoise points: the posterior mean, log-probability, entropy and effective number of data points.",
    "check": "Compare every backend with the float64 reference; exit code 1 if one breaks the accuracy contract.",
    "bench": "Time our backends beside what people use today, all in one run.",
    "demo": "Sample real digits with Heun's method; write the picture, the trajectory and the measurements.",
    "train": "Train a small denoising network with EDM's preconditioning, a flow, or a student; run again to go on.",
    "restore": "Restore held-out pictures from what was measured of them, by each method, beside the exact posterior.",
    "deviation": "Compare a learned flow with the optimal one: δ(t), cosines, and how near hybrid samples are to data.",
    "calibrate": "Find the window sizes k(σ) through which a local denoiser agrees best with a network.",
    "convert": "Write any data set as one .npy that is mapped into memory; run again to go on after an interruption.",
    "report": "Measure the paper's propositions and observations; write report.html and report.json.",
}

#: Those that torchrun may start several times, each with its rows of the data.
SHARED = ("sample", "check", "bench", "report")


class _Commands(TyperGroup):
    """Lists every command without importing it, and imports the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else _imported(name), rest


def _imported(name: str) -> Any:
    """The command itself, as Typer makes it from the function of that name in the module of that name."""
    from geodiff.cli.console import reports_errors, under_torchrun  # rich's progress bars and tables: help has none
    from geodiff.cli.option_errors import Command

    function = getattr(importlib.import_module(f"geodiff.cli.{name}"), name)
    may_write()
    alone = typer.Typer(add_completion=False)
    alone.command(name, cls=Command)(reports_errors(under_torchrun(function) if name in SHARED else function))
    return typer.main.get_command(alone)


app = typer.Typer(
    name="geodiff",
    cls=_Commands,
    help="The optimal denoiser of a diffusion model over a data set, computed exactly and fast.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"geodiff {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
