"""`geodiff sample`: draw samples along the probability-flow ODE of the optimal denoiser, and keep the trajectory."""

import inspect
import time
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer

from geodiff.base.arguments import check_integer
from geodiff.cli.console import check_folder, check_target, print_json, print_table, progress_bar, table
from geodiff.cli.option_errors import goes
from geodiff.cli.options import Backend, Data, Json, Seed, Solver, Threads, Tolerance, noise_like, open_denoiser
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.distributed.ranks import leading
from geodiff.output import pictures
from geodiff.schedules import SCHEDULES
from geodiff.solvers import sample as solve
from geodiff.solvers.registry import find_solver
from geodiff.solvers.shards import SIZE, Shards, check_strangers


def sample(
    data: Data = "digits",
    num: Annotated[int, typer.Option("--num", help="How many samples.")] = 16,
    steps: Annotated[int, typer.Option("--steps", help="Noise levels above 0, and so steps.")] = 18,
    solver: Solver = "heun",
    afs: Annotated[bool, typer.Option("--afs", help="Analytical first step: x / σ for the first evaluation.")] = False,
    schedule: Annotated[str, typer.Option("--schedule", help=f"One of {', '.join(SCHEDULES)}.")] = "karras",
    sigma_min: Annotated[
        float | None, typer.Option("--sigma-min", help="Lowest level above 0.", show_default="the schedule's")
    ] = None,
    sigma_max: Annotated[
        float | None, typer.Option("--sigma-max", help="Highest level.", show_default="the schedule's")
    ] = None,
    rho: Annotated[
        float | None, typer.Option("--rho", help="How levels crowd at low noise.", show_default="the schedule's")
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FILE.safetensors|FOLDER",
            help="The trajectory's file, replaced when done; or a folder of samples alone, which a run that was killed "
            "goes on with.",
        ),
    ] = Path("trajectory.safetensors"),
    shard: Annotated[int, typer.Option("--shard", help="Samples of one file of the folder.")] = SIZE,
    keep: Annotated[
        Literal["all", "end"], typer.Option("--keep", help="States and outputs of all levels, or the end alone.")
    ] = "all",
    images: Annotated[
        Path | None, typer.Option("--images", metavar="PNG", help="Write the samples as a grid of pictures, too.")
    ] = None,
    seed: Seed = 0,
    backend: Backend = "auto",
    tol: Tolerance = 1e-5,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Draw samples; write the trajectory: sigmas, states and denoiser outputs; to a folder, samples alone."""
    in_shards = out.suffix == "" or (out.is_dir() and out.suffix != ".safetensors")
    goes("where --out is a folder", in_shards, "shard")
    goes("where --out is a file", not in_shards, "keep", "images")
    if in_shards:
        check_folder("--out", out)
        check_strangers(out)
    else:
        check_target("--out", out, ".safetensors")
    check_target("--images", images, ".png")
    if images is not None:
        pictures.check_available()
    find_solver(solver)
    check_integer(steps, "--steps", 1)
    sigmas = _levels(schedule, steps, {"sigma_min": sigma_min, "sigma_max": sigma_max, "rho": rho})
    dataset, denoiser = open_denoiser(data, backend, tol, threads)
    if images is not None:
        pictures.check_shape(denoiser.shape)
        check_integer(num, "num", 1)
    if in_shards:
        _to_folder(Shards(out, num, sigmas, solver, afs, seed, shard), denoiser, dataset.name, json)
        return
    noise = noise_like(denoiser, num, seed) * sigmas[0].item()

    began = time.perf_counter()
    with progress_bar() as bar:
        task = bar.add_task(f"{solver}, {num} samples", total=steps)
        trajectory = solve(denoiser, noise, sigmas, solver, keep, lambda *_: bar.advance(task), afs=afs)
    seconds = time.perf_counter() - began

    settings = {"data": dataset.name, "schedule": schedule, "seed": str(seed), "backend": denoiser.backend}
    trajectory.metadata.update(settings)
    with leading(denoiser.ranks) as leads:
        if leads:
            trajectory.save(out)
            if images is not None:
                pictures.save_grid(images, trajectory.states[-1])
    document: dict[str, object] = {
        **settings,
        "seed": seed,
        "N": len(dataset),
        "shape": list(denoiser.shape),
        "num": num,
        "solver": solver,
        "afs": afs,
        "keep": keep,
        "evaluations": int(trajectory.metadata["evaluations"]),
        "sigmas": trajectory.sigmas.tolist(),
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "out": str(out),
        "images": None if images is None else str(images),
    }
    if json:
        print_json(document)
        return
    shown = table("", "")
    for key in ("N", "shape", "solver", "schedule", "evaluations", "backend", "threads"):
        shown.add_row(key, str(document[key]))
    shown.add_row("time", f"{seconds:.2f} s")
    shown.add_row("trajectory", str(out))
    if images is not None:
        shown.add_row("images", str(images))
    print_table(f"{num} samples of {dataset.name}", shown)


def _to_folder(shards: Shards, denoiser: OptimalDenoiser, name: str, json: bool) -> None:
    began = time.perf_counter()
    with progress_bar() as bar:
        task = bar.add_task(f"{shards.solver}, {shards.num} samples", total=shards.count)
        made = shards.run(denoiser, lambda *_: bar.advance(task))
    seconds = time.perf_counter() - began
    document = {
        "data": name,
        "num": shards.num,
        "files": shards.count,
        "made": made,
        "there": shards.count - made,
        "seed": shards.seed,
        "backend": denoiser.backend,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "out": str(shards.folder),
    }
    if json:
        print_json(document)
        return
    shown = table("", "")
    for key in ("files", "made", "there", "backend", "threads"):
        shown.add_row(key, str(document[key]))
    shown.add_row("time", f"{seconds:.2f} s")
    shown.add_row("folder", str(shards.folder))
    print_table(f"{shards.num} samples of {name}", shown)


def _levels(schedule: str, steps: int, wanted: dict[str, float | None]) -> torch.Tensor:
    """The named schedule with the parameters that were given; ValueError for one that it does not have."""
    if schedule not in SCHEDULES:
        raise ValueError(f"--schedule: found {schedule!r}, allowed {', '.join(SCHEDULES)}")
    make = SCHEDULES[schedule]
    given = {name: value for name, value in wanted.items() if value is not None}
    allowed = [name for name in inspect.signature(make).parameters if name in wanted]
    for name in given:
        if name not in allowed:
            option = "--" + name.replace("_", "-")
            raise ValueError(
                f"{option}: expected none with the schedule {schedule}; "
                f"of sigma_min, sigma_max and rho it takes {', '.join(allowed) or 'none'}"
            )
    return make(steps, **given)
