"""`geodiff calibrate`: the windows k(σ) through which a local denoiser agrees best with a network."""

from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

from geodiff import learned
from geodiff.analysis.calibration import PATCHES
from geodiff.analysis.calibration import calibrate as calibrated
from geodiff.base.arguments import check_integer
from geodiff.cli.console import check_target, print_json, print_table, progress_bar, table
from geodiff.cli.options import Backend, Data, Json, Seed, Threads, set_threads
from geodiff.data import load
from geodiff.local import LocalDenoiser
from geodiff.schedules import karras


def calibrate(
    net: Annotated[str, typer.Option("--net", metavar="PATH|NAME", help="Weights that `geodiff train` wrote.")],
    data: Data = "mnist5k",
    kind: Annotated[str, typer.Option("--kind", help="A kind of LocalDenoiser with windows.")] = "ls",
    patch: Annotated[
        list[int] | None,
        typer.Option("--patch", help="A size to try; may be repeated.", show_default="3, 5, .., 17"),
    ] = None,
    num: Annotated[int, typer.Option("--num", help="Samples of the network.")] = 8,
    steps: Annotated[int, typer.Option("--steps", help="Noise levels, Karras spacing from 80 to 0.002.")] = 18,
    out: Annotated[Path | None, typer.Option("--out", metavar="PATH", help="JSON file to write k(σ) to.")] = None,
    seed: Seed = 0,
    backend: Backend = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Find the window sizes k(σ) through which a local denoiser agrees best with a network."""
    check_target("--out", out, ".json")
    check_integer(num, "num", 1)
    check_integer(steps, "steps", 1)
    for k in patch or ():
        check_integer(k, "patch", 1)
    set_threads(threads)
    dataset, network = load(data), learned.load(net)
    make = partial(LocalDenoiser, dataset.data, kind=kind, backend=backend)
    shape = make(patch=1).shape
    if tuple(network.shape) != shape:
        raise ValueError(f"--net: expected a network of points {shape}, as the data are, found {network.shape}")
    sizes = patch or PATCHES
    for k in sizes:
        make(patch=k)  # what the kind does not take, or does not fit the pictures, is refused before the work
    generator = torch.Generator().manual_seed(seed)
    noise = 80 * torch.randn(num, *shape, generator=generator)
    with progress_bar() as bar:
        task = bar.add_task("levels and sizes", total=len(set(sizes)) * steps)
        found = calibrated(
            network, lambda k: make(patch=k), noise, karras(steps), sizes, progress=lambda: bar.advance(task)
        )
    if out is not None:
        found.schedule.save(out)
    cosines = found.cosines.mean(2).flip(0)  # [S, K], levels rising as in the schedule
    rows = [
        {
            "sigma": sigma,
            "patch": k,
            "cosine": {str(size): float(c) for size, c in zip(found.patches, row, strict=True)},
        }
        for sigma, k, row in zip(found.schedule.sigmas, found.schedule.patches, cosines, strict=True)
    ]
    if json:
        print_json({"data": dataset.name, "net": net, "kind": kind, "num": num, "levels": rows})
        return
    shown = table("σ ", "k ", *(f"cos, k = {size} " for size in found.patches))
    for row, line in zip(rows, cosines, strict=True):
        shown.add_row(f"{row['sigma']:.3g}", str(row["patch"]), *(f"{c:.3f}" for c in line.tolist()))
    print_table(f"{kind} over {dataset.name} against {net}: median of the best k, mean cosines", shown)
