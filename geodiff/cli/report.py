"""`geodiff report`: the paper's claims measured on a data set, as one page."""

from pathlib import Path
from typing import Annotated, Any

import typer

from geodiff import learned
from geodiff.base.package_name import install_hint
from geodiff.cli.console import print_json, print_table, progress_bar, table
from geodiff.cli.options import Backend, Data, Json, Seed, Threads, set_threads
from geodiff.data import load

_NO_NETWORK = "none"


def report(
    data: Data = "mnist5k",
    net: Annotated[
        str | None,
        typer.Option(
            "--net",
            metavar="PATH|NAME|none",
            help="Weights that `geodiff train` wrote, or the folder that it wrote them to.",
            show_default="those shipped for the data, if there are any",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Folder to write to; finished parts there are kept.")
    ] = Path("out/report"),
    num: Annotated[int, typer.Option("--num", help="Noises that trajectories start from.")] = 256,
    seed: Seed = 0,
    backend: Backend = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Measure the paper's propositions and observations; write report.html and report.json."""
    try:
        from geodiff import report as reports
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the report needs the package {error.name}, which is not installed; {install_hint('report')}"
        ) from error
    set_threads(threads)
    dataset = load(data)
    if net is None:
        net = dataset.name if dataset.name in learned.shipped() else _NO_NETWORK
    network = None if net == _NO_NETWORK else learned.load_network(net)
    out.mkdir(parents=True, exist_ok=True)
    with progress_bar() as bar:
        whole = bar.add_task("report", total=None)
        inside = bar.add_task("evaluations", total=None)

        def show(part: str, done: int, total: int) -> None:
            bar.update(whole, description=part.replace("_", " "), completed=done, total=total)

        document = reports.run(
            dataset,
            out,
            learned=network,
            num=num,
            seed=seed,
            backend=backend,
            progress=show,
            tick=lambda: bar.advance(inside),
        )
        bar.update(inside, total=bar.tasks[inside].completed)
    if json:
        print_json(document)
    else:
        _print(document, out)


def _print(document: dict[str, Any], out: Path) -> None:
    shown = table("", "", "")
    marks = {True: "[green]held[/green]", False: "[red]did not hold[/red]", None: "not measured"}
    for finding in document["findings"]:
        shown.add_row(finding["title"], marks[finding["held"]], finding["verdict"])
    shown.caption = f"{out}: report.html, report.json"
    print_table(f"{document['data']}: {document['held']} held, {document['not_held']} did not", shown)
