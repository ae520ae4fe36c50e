"""`geodiff deviation`: a learned velocity against the optimal one, and samples where it takes over at tau."""

from typing import Annotated

import torch
import typer

from geodiff import learned
from geodiff.adapters import FlowModel
from geodiff.analysis import flow_deviation
from geodiff.base.arguments import check_integer
from geodiff.cli.console import print_json, print_table, progress_bar, table
from geodiff.cli.options import Backend, Data, Json, Seed, Threads, noise_like, set_threads
from geodiff.data import load
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.denoiser.velocity import Moment
from geodiff.learned import LearnedFlow
from geodiff.paths import LINEAR
from geodiff.reference.formula import model_space

_TIMES = [0.95, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05]
_SWITCHES = [0.0, 0.2, 0.5, 0.8, 1.0]


def deviation(
    net: Annotated[str, typer.Option("--net", metavar="PATH|NAME", help="Weights that `geodiff train` wrote.")],
    data: Data = "mnist5k",
    num: Annotated[int, typer.Option("--num", help="Noises and data points.")] = 32,
    time: Annotated[
        list[float] | None,
        typer.Option("--t", help="A time, 1 at the noise; may be repeated.", show_default="0.95 .. 0.05"),
    ] = None,
    switch: Annotated[
        list[float] | None,
        typer.Option(
            "--tau",
            help="Until when the optimal flow is followed; may be repeated.",
            show_default="0, 0.2, 0.5, 0.8, 1",
        ),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", help="Euler steps of the samples.")] = 40,
    seed: Seed = 0,
    backend: Backend = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Compare a learned flow with the optimal one: δ(t), cosines, and how near hybrid samples are to data."""
    check_integer(num, "num", 1)
    check_integer(steps, "steps", 1)
    times, switches = time or _TIMES, switch or _SWITCHES
    Moment.of(LINEAR, torch.tensor(times, dtype=torch.float64))  # raises for times without a velocity
    if bad := [tau for tau in switches if not 0 <= tau <= 1]:
        raise ValueError(f"--tau: expected a time since the noise, found {bad[0]:g}; allowed 0 <= tau <= 1")
    set_threads(threads)
    dataset, network = load(data), learned.load(net)
    denoiser = OptimalDenoiser(dataset.data, backend=backend)
    if tuple(network.shape) != denoiser.shape:
        raise ValueError(
            f"--net: expected a network of points {denoiser.shape}, as the data are, found {network.shape}"
        )
    noise = noise_like(denoiser, num, seed)
    chosen = torch.randint(len(dataset), (num,), generator=torch.Generator().manual_seed(seed))
    points = model_space(denoiser.data[chosen], torch.float32)
    velocity = network.velocity if isinstance(network, LearnedFlow) else FlowModel(network, "A")
    with progress_bar() as bar:
        task = bar.add_task("along the path", total=1 + len(switches))
        found = flow_deviation.along_path(velocity, denoiser, points, noise, times)
        bar.advance(task)
        ends = []
        for tau in switches:
            bar.update(task, description=f"samples, optimal until {tau:g}")
            ends.append(flow_deviation.hybrid(network, denoiser, noise, [tau], steps=steps).distances[0])
            bar.advance(task)
    along = [
        {"t": t, "delta": float(d.mean()), "cosine": float(c.mean()), "target_cosine": float(g.mean())}
        for t, d, c, g in zip(found.times.tolist(), found.relative, found.cosine, found.target, strict=True)
    ]
    hybrid = [{"tau": tau, "distance": float(far.mean())} for tau, far in zip(switches, ends, strict=True)]
    document = {"data": dataset.name, "net": net, "num": num, "steps": steps, "path": along, "hybrid": hybrid}
    if json:
        print_json(document)
        return
    shown = table("t ", "delta ", "cos(v, v*) ", "cos(n - x0, v*) ")
    for row in along:
        shown.add_row(f"{row['t']:g}", *(f"{row[name]:.3f}" for name in ("delta", "cosine", "target_cosine")))
    print_table(f"{net} against the optimal velocity of {dataset.name}", shown)
    shown = table("optimal until tau ", "distance to the nearest data point ")
    for end in hybrid:
        shown.add_row(f"{end['tau']:g}", f"{end['distance']:.3g}")
    print_table("samples", shown)
