"""`geodiff restore`: held-out pictures from blurred, masked or small ones, by each method, with the exact posterior."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from geodiff.cli.console import check_target, print_json, print_table, progress_bar, table
from geodiff.cli.option_errors import goes
from geodiff.cli.options import Backend, Data, Json, Seed, Threads, Tolerance, set_threads
from geodiff.data import load
from geodiff.measure import restoration
from geodiff.measure.restoration import EXACT, METHODS, TASKS, Case, Restored, Setting
from geodiff.output import pictures

_SETTING = Setting()
_ROWS = 8  # of the picture


def restore(
    data: Data = "mnist5k",
    task: Annotated[str, typer.Option("--task", help=f"One of {', '.join(TASKS)}.")] = _SETTING.task,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method", help=f"One of {', '.join(METHODS)}, {EXACT}; may be repeated.", show_default="diffpir"
        ),
    ] = None,
    prior: Annotated[
        str, typer.Option("--prior", metavar="optimal|WEIGHTS", help="The denoiser: the optimal one, or a network.")
    ] = "optimal",
    num: Annotated[int, typer.Option("--num", help="How many pictures.")] = _SETTING.num,
    holdout: Annotated[
        int, typer.Option("--holdout", help="Points that no prior may know, from which the pictures are taken.")
    ] = _SETTING.holdout,
    sigma: Annotated[float, typer.Option("--sigma", help="Noise of the measurement, of pixels in -1 .. 1.")] = 0.05,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Noise levels above 0.", show_default="those of the method")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="PNG", help="Write truth, measurement and methods side by side.")
    ] = None,
    seed: Seed = 0,
    backend: Backend = "auto",
    tol: Tolerance = 1e-5,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Restore held-out pictures from what was measured of them, by each method, beside the exact posterior."""
    methods = [restoration.check_method(name) for name in method or ["diffpir"]]
    goes("with another method than exact", set(methods) != {EXACT}, "prior", "steps", "backend", "tol")
    goes("with --prior optimal", prior == "optimal", "backend", "tol")
    setting = Setting(task=task, num=num, holdout=holdout, sigma=sigma, seed=seed)
    check_target("--out", out, ".png")
    restoration.check_available()
    if out is not None:
        pictures.check_available()
    set_threads(threads)
    dataset = load(data)
    case = Case(dataset, setting)
    if out is not None:
        pictures.check_shape(case.truth.shape[1:])
    denoiser = case.prior(prior, backend=backend, tol=tol)
    with progress_bar() as bar:
        found: list[Restored] = []
        for name in methods:
            total = restoration.steps_of(name, steps)
            advance = partial(bar.advance, bar.add_task(f"{name}, {num} pictures", total=total))
            found.append(restoration.restore(case, name, denoiser, steps=steps, progress=advance))
    adjoint = case.problem.adjoint()
    if out is not None:
        columns = {"truth": case.truth, "measured (Aᵀy)": adjoint, "exact mean": case.exact.mean}
        columns |= {each.method: each.images for each in found}
        title = f"{task} of {dataset.name}, σₙ = {sigma:g}, prior: {prior}"
        pictures.save_columns(out, {name: images[:_ROWS] for name, images in columns.items()}, title=title)
    first = found[0].summary()
    document = {
        "data": dataset.name,
        "N": len(case.known),
        "holdout": holdout,
        "task": task,
        "prior": prior,
        "num": num,
        "sigma": sigma,
        "seed": seed,
        **first,
        "psnr_adjoint": restoration.psnr(adjoint, case.truth),
        "psnr_exact": restoration.psnr(case.exact.mean, case.truth),
        "ess": float(case.exact.ess.median()),
        "methods": [each.summary() for each in found],
        "out": None if out is None else str(out),
    }
    if json:
        print_json(document)
        return
    shown = table("", "PSNR ", "SSIM ", "evaluations ", "time ")
    shown.add_row("adjoint", f"{document['psnr_adjoint']:.2f} dB", "", "", "")
    shown.add_row("exact posterior mean", f"{document['psnr_exact']:.2f} dB", "", "", "")
    for each in found:
        shown.add_row(each.method, f"{each.psnr:.2f} dB", f"{each.ssim:.3f}", str(each.nfe), f"{each.seconds:.1f} s")
    shown.caption = None if out is None else str(out)
    print_table(f"{task}: {num} pictures of {dataset.name}, σₙ = {sigma:g}, prior: {prior}", shown)
