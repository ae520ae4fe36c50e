"""`geodiff check`: every available backend against the float64 reference."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from geodiff.cli.console import note, print_json, print_table, progress_bar, table
from geodiff.cli.option_errors import goes
from geodiff.cli.options import Data, Json, Seed, Threads, Tolerance, set_threads
from geodiff.data import Dataset, load
from geodiff.measure import check as grid
from geodiff.measure import published as shortcuts


def check(
    data: Data = "digits",
    backend: Annotated[
        list[str] | None, typer.Option("--backend", help="Check this one; may be repeated.", show_default="all")
    ] = None,
    sigma: Annotated[
        list[float] | None,
        typer.Option("--sigma", help="Check this noise level; may be repeated.", show_default="1e-3 .. 1000"),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", help="Check a random subset of so many points.", show_default="1 million numbers"),
    ] = None,
    tol: Tolerance = 1e-5,
    published: Annotated[
        bool, typer.Option("--published", help="Instead: what shortcuts of published code compute, against float64.")
    ] = False,
    seed: Seed = 0,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Compare every backend with the float64 reference; exit code 1 if one breaks the accuracy contract."""
    goes("without --published", not published, "backend", "tol")
    set_threads(threads)
    if published:
        _published(load(data, limit=limit), sigma or shortcuts.SIGMAS, seed, json=json)
        return
    dataset = grid.subset(load(data), limit, seed=seed)
    missing = grid.left_out(dataset)
    with progress_bar() as bar:
        task = bar.add_task("checking", total=None)
        rows = grid.run(
            dataset,
            backends=backend or None,
            sigmas=sigma or grid.SIGMAS,
            tol=tol,
            seed=seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    passed = all(row.ok for row in rows)
    if json:
        print_json(
            {"data": dataset.name, "tol": tol, "ok": passed, "left_out": missing, "rows": [asdict(row) for row in rows]}
        )
    else:
        title = f"{dataset.name}: error against float64, allowed {tol:g}; log p in units of what is allowed"
        print_table(title, _summary(rows))
        if missing:
            note(f"left out, since the data lie outside their range: {', '.join(missing)}")
    if not passed:
        raise typer.Exit(1)


def _summary(rows: Sequence[grid.CheckRow]) -> Table:
    """One line per backend, ISA and dtype: the worst of its grid, and where that was."""
    shown = table("backend", "isa", "dtype", "cells ", "error ", "at σ ", "B ", "N ", "d ", "log p ", "")
    groups: dict[tuple[str, str, str], list[grid.CheckRow]] = {}
    for row in rows:
        groups.setdefault((row.backend, row.isa, row.dtype), []).append(row)
    for key, group in groups.items():
        worst = max(group, key=lambda row: row.error)
        log_prob = max(row.log_prob_error for row in group)
        failed = sum(not row.ok for row in group)
        verdict = f"[red]{failed} failed[/red]" if failed else "[green]ok[/green]"
        place = (f"{worst.sigma:g}", str(worst.B), str(worst.N), str(worst.d))
        shown.add_row(*key, str(len(group)), f"{worst.error:.1e}", *place, f"{log_prob:.2g}", verdict)
    return shown


def _published(dataset: Dataset, sigmas: Sequence[float], seed: int, *, json: bool) -> None:
    """A line for each shortcut, a column for each level: the largest error over the queries."""
    with progress_bar() as bar:
        task = bar.add_task("against float64", total=len(sigmas))
        rows = shortcuts.run(
            dataset, sigmas=sigmas, seed=seed, progress=lambda done, total: bar.update(task, completed=done)
        )
    if json:
        print_json(
            {"data": dataset.name, "N": len(dataset), "queries": shortcuts.QUERIES, "rows": [asdict(r) for r in rows]}
        )
        return
    shown = table("", *(f"σ = {sigma:g} " for sigma in sigmas))
    for way in dict.fromkeys(row.way for row in rows):
        shown.add_row(way, *(f"{row.error:.0e}" for row in rows if row.way == way))
    title = f"{dataset.name}, N = {len(dataset):,}: largest error of r against float64 over {shortcuts.QUERIES} queries"
    print_table(title, shown)
