"""`geodiff bench`: our backends and their peers, timed in one run, each with its error."""

import json as json_format
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import typer

from geodiff.backends import cpu
from geodiff.base.arguments import check_integer
from geodiff.base.files import atomic_path
from geodiff.base.finite import finite
from geodiff.cli.console import check_target, note, print_json, print_table, progress_bar, table
from geodiff.cli.option_errors import goes
from geodiff.cli.options import Data, Json, Seed, Threads, set_threads
from geodiff.data import load
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.distributed import job
from geodiff.measure import (
    baseline_process,
    baselines,
    benchmark,
    local_baselines,
    local_benchmark,
    machine,
    trajectories,
)
from geodiff.measure.baselines import DESCRIPTIONS
from geodiff.measure.peaks import Call, Peaks, calls, peaks
from geodiff.reference.formula import model_space

_KINDS, _PATCHES = ("ls", "pspc_square"), (3, 7, 17)
_LOCAL = "geodiff bench --local: medians in milliseconds, interleaved; worst pixels; ratio to the fastest PyTorch"
_TRAJECTORY = "geodiff bench --trajectory: medians in milliseconds, interleaved; ratio to the torch loop"
_PEAKS = "geodiff bench --peaks: 1e9 multiply-adds and bytes per second, all threads together"
_CALLS = "geodiff bench: medians in milliseconds, interleaved; ratio to the fastest float32 form of PyTorch"

_Case = TypeVar("_Case")
_Found = TypeVar("_Found")
_Entry = Callable[[_Found], dict[str, Any]]


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
        typer.Option(
            "--peer",
            help=f"Only this of {', '.join([*DESCRIPTIONS, *local_baselines.DESCRIPTIONS])}; may be repeated.",
            show_default="all",
        ),
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option("--backend", help="Only this backend; may be repeated.", show_default="all")
    ] = None,
    isa: Annotated[
        list[str] | None,
        typer.Option("--isa", help="CPU instruction set; may be repeated.", show_default="the best"),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Timed rounds; every way once in each.")] = 7,
    limits: Annotated[
        bool, typer.Option("--peaks", help="Instead: what the processor and its memory could do, and our share of it.")
    ] = False,
    local: Annotated[bool, typer.Option("--local", help="Instead: local denoisers, beside plain PyTorch.")] = False,
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", help="With --local: a kind; may be repeated.", show_default="ls, pspc_square"),
    ] = None,
    patch: Annotated[
        list[int] | None,
        typer.Option("--patch", help="With --local: a window; may be repeated.", show_default="3, 7, 17"),
    ] = None,
    cpu_time: Annotated[
        bool, typer.Option("--cpu-time", help="With --local: seconds of the processor, for cores that others use, too.")
    ] = False,
    trajectory: Annotated[
        bool, typer.Option("--trajectory", help="Instead: whole trajectories, beside loops around a PyTorch denoiser.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the result to this .json file.")] = None,
    tol: Annotated[
        list[float] | None,
        typer.Option("--tol", help="Relative error allowed; may be repeated, each timed.", show_default="1e-5"),
    ] = None,
    seed: Seed = 0,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Time our backends beside what people use today, all in one run.

    Every way takes its turn in each round; FAISS and KeOps, whose threads disturb others, in processes of their own.

    No speed is printed for a result of ours that breaks the contract.
    """
    modes = [name for name, on in (("--local", local), ("--trajectory", trajectory), ("--peaks", limits)) if on]
    if len(modes) > 1:
        raise ValueError(f"{modes[1]}: found together with {modes[0]}, allowed one of them")
    goes("with --local", local, "kind", "patch", "cpu_time")
    goes("without --trajectory", not trajectory, "sigma", "backend", "peer", "isa")
    goes("without --peaks", not limits, "backend", "peer")
    goes("without --local", not local, "isa")
    goes("with --backend cpu", not backend or "cpu" in backend, "isa")
    check_target("--out", out, ".json")
    ranks = job.ranks()
    if limits and ranks.size > 1:
        raise ValueError(f"--peaks: expected one process, whose processor it is about, found {ranks.size} of torchrun")
    if (limits or local) and tol is not None and len(tol) > 1:
        raise ValueError(f"--tol: expected one with --peaks or --local, found {len(tol)}")
    for count in batch or ():
        check_integer(count, "--batch", 1)
    if unknown := [name for name in isa or () if name not in cpu.isas()]:
        raise ValueError(f"--isa: expected one of this machine, found {unknown[0]!r}; allowed {cpu.isas()}")
    set_threads(threads)
    dataset = load(data)
    stored = dataset.data if dtype is None else model_space(dataset.data, torch.float32).to(_dtype(dtype))
    tols = tol or [1e-5]
    grid = [(s, b) for s in (sigma or [40.0, 1.0]) for b in (batch or [1, 16, 64])]
    about = {
        **machine.provenance(),
        "data": {"name": dataset.name, "shape": list(stored.shape), "dtype": str(stored.dtype).removeprefix("torch.")},
        "tol": tols[0] if len(tols) == 1 else tols,
        "rounds": rounds,
        **({"ranks": ranks.size} if ranks.size > 1 else {}),
    }
    title = f"{dataset.name} {list(stored.shape)}"
    if local:
        cases = [local_benchmark.Case(k, p, *cell) for k in kind or _KINDS for p in patch or _PATCHES for cell in grid]
        clock = time.process_time if cpu_time else time.perf_counter
        names = local_benchmark.our_backends(backend)
        ours = local_benchmark.LocalBench(stored, names, rounds, seed, tols[0], clock).only(peer)
        results = _Results({"what": _LOCAL, **about, "clock": clock.__name__}, "cells", out, json)
        cells = results.of_each(cases, ours.run, _cell)
        for case, found_cell in [] if json else zip(cases, cells, strict=True):
            which = f"{case.kind}, k = {case.patch}, sigma = {case.sigma:g}, B = {case.batch}"
            print_table(f"{title}, {which}", _table(found_cell))
        return
    if trajectory:
        walks = [(*walk, size) for walk in trajectories.WALKS for size in batch or [1, 16, 64]]
        ways = trajectories.TrajectoryBench(stored, rounds, seed, tols)
        results = _Results({"what": _TRAJECTORY, **about}, "walks", out, json)
        for one in results.of_each(walks, lambda walk: ways.run(*walk), _walks):
            if not json:
                print_table(f"{title}, {one.solver}, {one.steps} steps, B = {one.batch}", _walks_table(one))
        return
    if limits:
        denoiser = OptimalDenoiser(stored, backend="cpu", tol=tols[0])
        measured = [peaks(name) for name in isa or cpu.isas()]
        found = [call for one in measured for call in calls(denoiser, one, grid, rounds, seed)]
        results = _Results({"what": _PEAKS, **about, "peaks": [asdict(one) for one in measured]}, "calls", out, json)
        results.finish([asdict(call) for call in found])
        if not json:
            print_table("what the machine could do", _peaks_table(measured))
            print_table(f"what calls reach: {title}", _calls_table(found))
        return
    denoisers = benchmark.denoisers_for(stored, benchmark.our_variants(backend, isa), tols)
    names = baselines.known(peer) if ranks.rank == 0 else []  # peers know of no ranks
    with baseline_process.opened(dataset.data, names) as peers:
        timed = benchmark.Bench(stored, denoisers, peers, rounds, seed)
        results = _Results({"what": _CALLS, **about}, "cells", out, json)
        for cell in results.of_each(grid, lambda cell: timed.run(*cell), _cell):
            if not json:
                print_table(f"{title}, sigma = {cell.sigma:g}, B = {cell.batch}", _table(cell))


@dataclass(frozen=True)
class _Results:
    """What a run has found: in the file after each part of it, so that a kill loses no more than one."""

    about: dict[str, Any]
    name: str  # of the list of entries
    out: Path | None
    json: bool

    def of_each(self, cases: Sequence[_Case], run: Callable[[_Case], _Found], entry: _Entry[_Found]) -> list[_Found]:
        """run(case) of all cases, in order."""
        found: list[_Found] = []
        with progress_bar() as bar:
            for case in bar.track(cases, description="timing"):
                found.append(run(case))
                if len(found) < len(cases):
                    self._write([entry(one) for one in found], {"left": len(cases) - len(found)})
        self.finish([entry(one) for one in found])
        return found

    def finish(self, entries: list[dict[str, Any]]) -> None:
        """To the file, and as JSON to standard output if that is wanted."""
        document = self._write(entries, {})
        if self.out is not None and job.ranks().rank == 0:
            note(f"wrote {self.out}")
        if self.json:
            print_json(document)

    def _write(self, entries: list[dict[str, Any]], more: dict[str, Any]) -> dict[str, Any]:
        document = finite({**self.about, self.name: entries, **more})
        if self.out is not None and job.ranks().rank == 0:
            with atomic_path(self.out) as temporary:
                temporary.write_text(json_format.dumps(document, indent=1, allow_nan=False) + "\n")
        return document


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
        **({"kind": cell.kind, "patch": cell.patch} if isinstance(cell, local_benchmark.LocalCell) else {}),
        "sigma": cell.sigma,
        "batch": cell.batch,
        "baseline": cell.baseline.name if cell.baseline else None,
        "ours": [entry(timing) for timing in cell.ours],
        "peers": [entry(timing) for timing in cell.peers],
    }


def _walks(walks: trajectories.Walks) -> dict[str, Any]:
    def number(value: float, digits: int) -> float | None:
        return round(value, digits) if value == value else None

    ways = [
        {
            "name": way.name,
            "median_ms": number(way.median, 2),
            "ratio": number(walks.ratio(way), 3),
            "error": number(way.error, 12),
            "rounds": len(way.milliseconds),
            "note": way.note,
        }
        for way in walks.ways
    ]
    return {"solver": walks.solver, "steps": walks.steps, "batch": walks.batch, "ways": ways}


def _walks_table(walks: trajectories.Walks) -> Any:
    shown = table("", "median ms ", "ratio ", "error ", "")
    for way in _walks(walks)["ways"]:
        cells = (way["median_ms"], way["ratio"], way["error"])
        shown.add_row(way["name"], *("-" if one is None else f"{one:.3g}" for one in cells), way["note"])
    return shown


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


def _peaks_table(measured: list[Peaks]) -> Any:
    shown = table("", "float32, G/s ", "integers, G/s ", "memory, GB/s ")
    for one in measured:
        integer = "-" if one.integer is None else f"{one.integer:.0f}"
        shown.add_row(one.isa, f"{one.float32:.0f}", integer, f"{one.read:.1f}")
    return shown


def _calls_table(found: list[Call]) -> Any:
    shown = table("", "sigma ", "B ", "median ms ", "products, G/s ", "of the peak ", "data, GB/s ", "of the memory's ")
    for call in found:
        shown.add_row(
            call.isa,
            f"{call.sigma:g}",
            str(call.batch),
            f"{call.milliseconds:.2f}",
            f"{call.products:.1f}",
            f"{call.share:.0%}",
            f"{call.read:.1f}",
            f"{call.share_read:.0%}",
        )
    return shown
