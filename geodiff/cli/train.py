"""`geodiff train`: a learned denoiser for a data set, made by a run that can be stopped and resumed."""

from pathlib import Path
from typing import Annotated

import typer

from geodiff import learned
from geodiff.cli.console import note, print_summary, progress_bar
from geodiff.cli.option_errors import goes
from geodiff.cli.options import Data, Json, Seed, Threads, set_threads
from geodiff.data import load, split
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.learned import Training
from geodiff.learned import train as fit
from geodiff.learned.distillation import METHODS, Distillation, evaluations
from geodiff.learned.distillation import distill as fit_student
from geodiff.learned.weights_file import FILE_NAME

_DEFAULT = Training()
#: A flow where nothing else is asked for: less than five minutes on two cores for images of 28x28.
_FLOW = Training(steps=1200, width=32, flow=True)
_STUDENT = Distillation()


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
            "--steps",
            help="Steps of the optimiser.",
            show_default=f"{_DEFAULT.steps}, {_FLOW.steps} of a flow, or {_STUDENT.steps} of a student",
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
        int | None,
        typer.Option(
            "--patch",
            help="Pixels to a side that are folded into channels first.",
            show_default=f"{_DEFAULT.patch}, or {_STUDENT.patch} of a student",
        ),
    ] = None,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", help="The highest; it falls to 0.")
    ] = _DEFAULT.learning_rate,
    ema: Annotated[
        float | None,
        typer.Option(
            "--ema",
            help="Decay of the average that is saved.",
            show_default=f"{_DEFAULT.ema}, or {_STUDENT.ema} of a student",
        ),
    ] = None,
    wide: Annotated[
        float, typer.Option("--wide", help="Share of noise levels drawn evenly in ln σ over 0.002 .. 100.")
    ] = _DEFAULT.wide,
    holdout: Annotated[
        int, typer.Option("--holdout", help="Points that it never sees: those that `geodiff restore` restores.")
    ] = _DEFAULT.holdout,
    distill: Annotated[
        str | None,
        typer.Option("--distill", help=f"Instead: a student of --teacher, by one of {', '.join(METHODS)}."),
    ] = None,
    teacher: Annotated[
        str, typer.Option("--teacher", metavar="optimal|WEIGHTS", help="What is distilled: any denoiser.")
    ] = "optimal",
    pairs: Annotated[
        int, typer.Option("--pairs", help="Trajectories of the teacher that kd and dfno learn from.")
    ] = _STUDENT.pairs,
    bfloat16: Annotated[bool, typer.Option("--bfloat16", help="Products in bfloat16.")] = False,
    save_every: Annotated[int, typer.Option("--save-every", help="Steps between checkpoints and log lines.")] = 250,
    seed: Seed = 0,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Train a small denoising network with EDM's preconditioning, a flow, or a student; run again to go on."""
    goes("without --distill", distill is None, "flow", "target", "wide", "bfloat16", "save_every")
    goes("with --distill", distill is not None, "teacher", "pairs")
    goes("with --distill kd or dfno", distill not in ("pd", "cd", "ct"), "pairs")
    goes("with another method than ct", distill != "ct" or teacher == "optimal", "teacher")
    set_threads(threads)
    if distill is not None:
        settings = Distillation(
            method=distill,
            steps=_STUDENT.steps if steps is None else steps,
            batch=batch,
            width=_STUDENT.width if width is None else width,
            patch=_STUDENT.patch if patch is None else patch,
            pairs=pairs,
            learning_rate=learning_rate,
            ema=_STUDENT.ema if ema is None else ema,
            seed=seed,
        )
        print_summary(f"{distill} student of {teacher}", _distil(data, holdout, teacher, out, settings), as_json=json)
        return
    patch = _DEFAULT.patch if patch is None else patch
    ema = _DEFAULT.ema if ema is None else ema
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
    weights = out / FILE_NAME
    document = {
        "data": dataset.name,
        "steps": steps,
        "parameters": sum(parameter.numel() for parameter in denoiser.parameters()),
        "bytes": weights.stat().st_size,
        "weights": str(weights),
        "log": str(out / "log.jsonl"),
    }
    print_summary(f"{'flow' if flow else 'denoiser'} of {dataset.name}", document, as_json=json)


def _distil(data: str, holdout: int, teacher: str, out: Path, settings: Distillation) -> dict[str, object]:
    """Distils the named teacher, with a bar for pairs and for steps; returns what is printed."""
    dataset = load(data)
    points = dataset.data[split(len(dataset), holdout).kept] if holdout else dataset.data
    denoiser = OptimalDenoiser(points) if teacher == "optimal" else learned.load(teacher)
    shape = tuple(points.shape[1:])
    if tuple(denoiser.shape) != shape:
        raise ValueError(f"--teacher: expected a denoiser of points {shape}, as the data are, found {denoiser.shape}")
    if (out / "checkpoint.pt").is_file():
        note(f"going on from {out / 'checkpoint.pt'}")
    with progress_bar() as bar:
        bars = {"training": bar.add_task("training", total=settings.steps)}

        def show(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = bar.add_task(what, total=total)
            bar.update(bars[what], completed=done, total=total)

        origin: dict[str, object] = {"data": dataset.name, "teacher": teacher, "holdout": holdout}
        student = fit_student(denoiser, points, out, settings, origin=origin, progress=show)
    weights = out / FILE_NAME
    return {
        "data": dataset.name,
        "distill": settings.method,
        "teacher": teacher,
        "steps": settings.steps,
        "evaluations": evaluations(student),
        "parameters": sum(parameter.numel() for parameter in student.parameters()),
        "bytes": weights.stat().st_size,
        "weights": str(weights),
        "log": str(out / "log.jsonl"),
    }
