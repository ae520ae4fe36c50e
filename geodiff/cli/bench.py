"""`geodiff bench`: our backends and their peers, timed in one run, each with its error."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from geodiff.backends import cpu
from geodiff.base.arguments import check_integer
from geodiff.cli.bench_document import Results, cell_entry, walks_entry
from geodiff.cli.bench_tables import calls_table, cell_table, peaks_table, walks_table
from geodiff.cli.console import check_target, print_table
from geodiff.cli.option_errors import goes
from geodiff.cli.options import Data, Json, Seed, Threads, set_threads
from geodiff.data import Dataset, load
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
from geodiff.measure.peaks import calls, peaks
from geodiff.measure.stopwatch import Clock
from geodiff.reference.formula import model_space

_KINDS, _PATCHES = ("ls", "pspc_square"), (3, 7, 17)
_LOCAL = "geodiff bench --local: medians in milliseconds, interleaved; worst pixels; ratio to the fastest PyTorch"
_TRAJECTORY = "geodiff bench --trajectory: medians in milliseconds, interleaved; ratio to the torch loop"
_PEAKS = "geodiff bench --peaks: 1e9 multiply-adds and bytes per second, all threads together"
_CALLS = "geodiff bench: medians in milliseconds, interleaved; ratio to the fastest float32 form of PyTorch"


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
    asked = _Asked(
        dataset=dataset,
        stored=dataset.data if dtype is None else model_space(dataset.data, torch.float32).to(_dtype(dtype)),
        sigmas=sigma or [40.0, 1.0],
        batches=batch or [1, 16, 64],
        tols=tol or [1e-5],
        rounds=rounds,
        seed=seed,
        provenance=machine.provenance(),
        out=out,
        json=json,
    )
    if local:
        clock = time.process_time if cpu_time else time.perf_counter
        _time_local(asked, kind or _KINDS, patch or _PATCHES, backend, peer, clock)
    elif trajectory:
        _time_trajectories(asked)
    elif limits:
        _measure_peaks(asked, isa or cpu.isas())
    else:
        _time_calls(asked, backend, isa, peer)


@dataclass(frozen=True)
class _Asked:
    """What all modes take. The data are timed as `stored`; provenance is of the run, from before it begins."""

    dataset: Dataset
    stored: torch.Tensor
    sigmas: Sequence[float]
    batches: Sequence[int]
    tols: Sequence[float]
    rounds: int
    seed: int
    provenance: dict[str, Any]
    out: Path | None
    json: bool

    @property
    def grid(self) -> list[tuple[float, int]]:
        """Each sigma with each batch."""
        return [(sigma, batch) for sigma in self.sigmas for batch in self.batches]

    @property
    def title(self) -> str:
        """What the tables are of."""
        return f"{self.dataset.name} {list(self.stored.shape)}"

    def results(self, what: str, name: str, **more: object) -> Results:
        """Where a mode puts what it finds: entries in the list `name`, behind what the run is about."""
        stored, ranks = self.stored, job.ranks().size
        about = {
            "what": what,
            **self.provenance,
            "data": {
                "name": self.dataset.name,
                "shape": list(stored.shape),
                "dtype": str(stored.dtype).removeprefix("torch."),
            },
            "tol": self.tols[0] if len(self.tols) == 1 else self.tols,
            "rounds": self.rounds,
            **({"ranks": ranks} if ranks > 1 else {}),
            **more,
        }
        return Results(about, name, self.out, self.json)


def _time_calls(
    asked: _Asked, backend: Sequence[str] | None, isa: Sequence[str] | None, peer: Sequence[str] | None
) -> None:
    """One call of each of our backends and of the peers, over the grid."""
    denoisers = benchmark.denoisers_for(asked.stored, benchmark.our_variants(backend, isa), asked.tols)
    names = baselines.known(peer) if job.ranks().rank == 0 else []  # peers know of no ranks
    with baseline_process.opened(asked.dataset.data, names) as peers:
        timed = benchmark.Bench(asked.stored, denoisers, peers, asked.rounds, asked.seed)
        results = asked.results(_CALLS, "cells")
        for cell in results.of_each(asked.grid, lambda cell: timed.run(*cell), cell_entry):
            if not asked.json:
                print_table(f"{asked.title}, sigma = {cell.sigma:g}, B = {cell.batch}", cell_table(cell))


def _time_local(
    asked: _Asked,
    kinds: Sequence[str],
    patches: Sequence[int],
    backend: Sequence[str] | None,
    peer: Sequence[str] | None,
    clock: Clock,
) -> None:
    """--local: one call of each local denoiser beside plain PyTorch, over the grid."""
    cases = [local_benchmark.Case(kind, patch, *cell) for kind in kinds for patch in patches for cell in asked.grid]
    names = local_benchmark.our_backends(backend)
    bench = local_benchmark.LocalBench(asked.stored, names, asked.rounds, asked.seed, asked.tols[0], clock).only(peer)
    results = asked.results(_LOCAL, "cells", clock=clock.__name__)
    cells = results.of_each(cases, bench.run, cell_entry)
    for case, cell in [] if asked.json else zip(cases, cells, strict=True):
        which = f"{case.kind}, k = {case.patch}, sigma = {case.sigma:g}, B = {case.batch}"
        print_table(f"{asked.title}, {which}", cell_table(cell))


def _time_trajectories(asked: _Asked) -> None:
    """--trajectory: whole trajectories beside loops around a PyTorch denoiser, by solver and batch."""
    walks = [(*walk, size) for walk in trajectories.WALKS for size in asked.batches]
    ways = trajectories.TrajectoryBench(asked.stored, asked.rounds, asked.seed, asked.tols)
    results = asked.results(_TRAJECTORY, "walks")
    for one in results.of_each(walks, lambda walk: ways.run(*walk), walks_entry):
        if not asked.json:
            print_table(f"{asked.title}, {one.solver}, {one.steps} steps, B = {one.batch}", walks_table(one))


def _measure_peaks(asked: _Asked, isas: Sequence[str]) -> None:
    """--peaks: what the processor and its memory could do, and what calls over the grid reach of it."""
    denoiser = OptimalDenoiser(asked.stored, backend="cpu", tol=asked.tols[0])
    measured = [peaks(name) for name in isas]
    found = [call for one in measured for call in calls(denoiser, one, asked.grid, asked.rounds, asked.seed)]
    results = asked.results(_PEAKS, "calls", peaks=[asdict(one) for one in measured])
    results.finish([asdict(call) for call in found])
    if not asked.json:
        print_table("what the machine could do", peaks_table(measured))
        print_table(f"what calls reach: {asked.title}", calls_table(found))


def _dtype(name: str) -> torch.dtype:
    allowed = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if name not in allowed:
        raise ValueError(f"--dtype: expected a storage dtype, found {name!r}; allowed {', '.join(allowed)}")
    return allowed[name]
