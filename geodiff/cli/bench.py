"""`geodiff bench`: our backends and their peers, timed in one run, each with its error."""

import json as json_format
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from geodiff.base.files import atomic_path
from geodiff.cli.console import check_target, note, print_json, print_table, progress_bar, table
from geodiff.cli.options import Data, Json, Seed, Threads, Tolerance, set_threads
from geodiff.data import load
from geodiff.measure import baseline_process, benchmark, machine
from geodiff.measure.baselines import DESCRIPTIONS
from geodiff.reference.formula import model_space


def bench(
    data: Data = "mnist5k",
    sigma: Annotated[
        list[float] | None, typer.Option("--sigma", help="Noise level; may be repeated.", show_default="40, 1")
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option("--batch", help="Queries per call; may be repeated.", show_default="1, 16, 64")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Store the data as float32, float16 or bfloat16 instead.")
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option("--peer", help=f"Only this of {', '.join(DESCRIPTIONS)}; may be repeated.", show_default="all"),
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option("--backend", help="Only this backend; may be repeated.", show_default="all")
    ] = None,
    isa: Annotated[
        list[str] | None,
        typer.Option("--isa", help="CPU instruction set; may be repeated.", show_default="the best"),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Timed rounds; every way once in each.")] = 7,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the result to this .json file.")] = None,
    tol: Tolerance = 1e-5,
    seed: Seed = 0,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Time our backends beside what people use today, all in one run.

    Every way takes its turn in each round; FAISS and KeOps, whose threads disturb others, in processes of their own.

    No speed is printed for a result of ours that breaks the contract.
    """
    check_target("--out", out, ".json")
    set_threads(threads)
    dataset = load(data)
    stored = dataset.data if dtype is None else model_space(dataset.data, torch.float32).to(_dtype(dtype))
    denoisers = benchmark.denoisers_for(stored, benchmark.our_variants(backend, isa), tol)
    grid = [(s, b) for s in (sigma or [40.0, 1.0]) for b in (batch or [1, 16, 64])]
    with baseline_process.opened(dataset.data, peer) as peers, progress_bar() as bar:
        task = bar.add_task("timing", total=len(grid))
        bench = benchmark.Bench(stored, denoisers, peers, rounds, tol, seed)
        for level, size in grid:
            bench.run(level, size)
            bar.advance(task)
    document = {
        "what": "geodiff bench: medians in milliseconds, interleaved; ratio to the fastest float32 form of PyTorch",
        **machine.provenance(),
        "data": {"name": dataset.name, "shape": list(stored.shape), "dtype": str(stored.dtype).removeprefix("torch.")},
        "tol": tol,
        "rounds": rounds,
        "cells": [_cell(cell) for cell in bench.cells],
    }
    if out is not None:
        with atomic_path(out) as temporary:
            temporary.write_text(json_format.dumps(document, indent=1, allow_nan=False) + "\n")
        note(f"wrote {out}")
    if json:
        print_json(document)
        return
    for cell in bench.cells:
        print_table(f"{dataset.name} {list(stored.shape)}, sigma = {cell.sigma:g}, B = {cell.batch}", _table(cell))


def _dtype(name: str) -> torch.dtype:
    allowed = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if name not in allowed:
        raise ValueError(f"--dtype: expected a storage dtype, found {name!r}; allowed {', '.join(allowed)}")
    return allowed[name]


def _cell(cell: benchmark.Cell) -> dict[str, Any]:
    def entry(timing: benchmark.Timing) -> dict[str, Any]:
        ran = bool(timing.milliseconds)
        return {
            "name": timing.name,
            "median_ms": round(timing.median, 4) if ran else None,
            "spread": round(timing.spread, 3) if ran else None,
            "ratio": round(cell.ratio(timing), 3) if ran and cell.baseline else None,
            "error": timing.error if timing.error == timing.error else None,
            "rounds": len(timing.milliseconds),
            "note": timing.note,
        }

    return {
        "sigma": cell.sigma,
        "batch": cell.batch,
        "baseline": cell.baseline.name if cell.baseline else None,
        "ours": [entry(timing) for timing in cell.ours],
        "peers": [entry(timing) for timing in cell.peers],
    }


def _table(cell: benchmark.Cell) -> Any:
    shown = table("", "median ms ", "ratio ", "error ", "")
    for timing in (*cell.ours, *cell.peers):
        ran = bool(timing.milliseconds)
        remark = timing.note or ("<- ratios are to this" if timing is cell.baseline else "")
        shown.add_row(
            timing.name,
            f"{timing.median:.2f}" if ran else "-",
            f"{cell.ratio(timing):.2f}" if ran and cell.baseline else "-",
            f"{timing.error:.1e}" if timing.error == timing.error else "-",
            remark,
        )
    return shown
