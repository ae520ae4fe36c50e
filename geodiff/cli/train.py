"""`geodiff train`: a learned denoiser for a data set, made by a run that can be stopped and resumed."""

from pathlib import Path
from typing import Annotated

import typer

from geodiff.cli.console import note, print_summary, progress_bar
from geodiff.cli.options import Data, Json, Seed, Threads, set_threads
from geodiff.data import load
from geodiff.learned import Training
from geodiff.learned import train as fit

_DEFAULT = Training()
#: A flow where nothing else is asked for: less than five minutes on two cores for images of 28x28.
_FLOW = Training(steps=1200, width=32, flow=True)


def train(
    data: Data = "mnist5k",
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FOLDER", help="Folder for weights, checkpoint and log; goes on from there."),
    ] = Path("out/train"),
    flow: Annotated[
        bool, typer.Option("--flow", help="A velocity of flow matching instead of a denoiser (EDM).")
    ] = False,
    target: Annotated[
        str,
        typer.Option(
            "--target",
            help="What it is drawn to: data (the point itself), expected (the optimal answer over all data), or "
            "optimal (that without the point).",
        ),
    ] = _DEFAULT.target,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", help="Steps of the optimiser.", show_default=f"{_DEFAULT.steps}, or {_FLOW.steps} of a flow"
        ),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", help="Pictures per step.")] = _DEFAULT.batch,
    width: Annotated[
        int | None,
        typer.Option(
            "--width",
            help="Channels of the network, a multiple of 8.",
            show_default=f"{_DEFAULT.width}, or {_FLOW.width} of a flow",
        ),
    ] = None,
    patch: Annotated[
        int, typer.Option("--patch", help="Pixels to a side that are folded into channels first.")
    ] = _DEFAULT.patch,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", help="The highest; it falls to 0.")
    ] = _DEFAULT.learning_rate,
    ema: Annotated[float, typer.Option("--ema", help="Decay of the average that is saved.")] = _DEFAULT.ema,
    wide: Annotated[
        float, typer.Option("--wide", help="Share of noise levels drawn evenly in ln σ over 0.002 .. 100.")
    ] = _DEFAULT.wide,
    holdout: Annotated[
        int, typer.Option("--holdout", help="Points that it never sees: those that `geodiff restore` restores.")
    ] = _DEFAULT.holdout,
    bfloat16: Annotated[bool, typer.Option("--bfloat16", help="Products in bfloat16.")] = False,
    save_every: Annotated[int, typer.Option("--save-every", help="Steps between checkpoints and log lines.")] = 250,
    seed: Seed = 0,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Train a small denoising network with EDM's preconditioning, or a flow; run again to go on."""
    set_threads(threads)
    default = _FLOW if flow else _DEFAULT
    steps = default.steps if steps is None else steps
    width = default.width if width is None else width
    dataset = load(data)
    training = Training(
        steps=steps,
        batch=batch,
        width=width,
        patch=patch,
        learning_rate=learning_rate,
        ema=ema,
        wide=wide,
        seed=seed,
        bfloat16=bfloat16,
        flow=flow,
        target=target,
        holdout=holdout,
    )
    if (out / "checkpoint.pt").is_file():
        note(f"going on from {out / 'checkpoint.pt'}")
    with progress_bar() as bar:
        task = bar.add_task("training", total=steps)

        def show(step: int, loss: float) -> None:
            bar.update(task, completed=step, description=f"training, loss {loss:.3f}")

        denoiser = fit(dataset.data, out, training, name=dataset.name, save_every=save_every, progress=show)
    weights = out / "weights.safetensors"
    document = {
        "data": dataset.name,
        "steps": steps,
        "parameters": sum(parameter.numel() for parameter in denoiser.parameters()),
        "bytes": weights.stat().st_size,
        "weights": str(weights),
        "log": str(out / "log.jsonl"),
    }
    print_summary(f"{'flow' if flow else 'denoiser'} of {dataset.name}", document, as_json=json)
