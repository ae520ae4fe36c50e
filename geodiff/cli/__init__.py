"""The command `geodiff`: one module per subcommand, registered here.

Imports from everything; nothing imports from here.
"""

from typing import Annotated

import typer

from geodiff.base.version import VERSION
from geodiff.cli import bench, check, convert, demo, denoise, deviation, info, report, sample, train
from geodiff.cli.console import reports_errors

app = typer.Typer(
    name="geodiff",
    help="The optimal denoiser of a diffusion model over a data set, computed exactly and fast.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (
    info.info,
    sample.sample,
    denoise.denoise,
    check.check,
    bench.bench,
    demo.demo,
    train.train,
    report.report,
    deviation.deviation,
    convert.convert,
):
    app.command()(reports_errors(command))


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


def main() -> None:
    """Runs the command line. Exit codes: 0 done, 1 a contract is broken, 2 bad input, 130 interrupted."""
    app()
