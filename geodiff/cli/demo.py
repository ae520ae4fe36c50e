"""`geodiff demo`: the main job on real digits, every evaluation timed and compared with the float64 reference."""

from pathlib import Path
from typing import Annotated, Any

import typer

from geodiff.cli.console import print_json, print_table, progress_bar, table
from geodiff.cli.options import Data, Json, Seed, Threads, Tolerance, set_threads
from geodiff.data import load
from geodiff.measure import demo as main_job


def demo(
    data: Data = "mnist5k",
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder to write to.")] = Path("out/demo"),
    num: Annotated[int, typer.Option("--num", help="How many samples.", min=1)] = 64,
    steps: Annotated[int, typer.Option("--steps", help="Noise levels above 0.", min=1)] = 18,
    seed: Seed = 0,
    tol: Tolerance = 1e-5,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Sample real digits with Heun's method; write the picture, the trajectory and the measurements."""
    set_threads(threads)
    dataset = load(data)
    with progress_bar() as bar:
        task = bar.add_task("sampling, timing and checking", total=2 * steps - 1)
        summary = main_job.run(
            dataset, out, num=num, steps=steps, seed=seed, tol=tol, progress=lambda: bar.advance(task)
        )
    if json:
        print_json(summary)
    else:
        _print(summary, out)
    if not summary["ok"]:
        raise typer.Exit(1)


def _print(summary: dict[str, Any], out: Path) -> None:
    title = (
        f"{summary['B']} samples of {summary['data']} (N = {summary['N']:,}, d = {summary['d']}): "
        f"{summary['evaluations']} evaluations, {summary['threads']} threads"
    )
    shown = table("", "time per evaluation ", "largest error ")
    isa = f", {summary['isa']}" if summary["isa"] else ""
    verdict = "[green]ok[/green]" if summary["ok"] else f"[red]above {summary['tol']:g}[/red]"
    shown.add_row(
        f"geodiff ({summary['backend']}{isa})",
        f"{summary['kernel_ms']:.1f} ms",
        f"{summary['largest_error']:.1e} {verdict}",
    )
    shown.add_row(
        "PyTorch float32, two products", f"{summary['torch_ms']:.1f} ms", f"{summary['largest_error_of_torch']:.1e}"
    )
    shown.add_row("ratio", f"{summary['ratio']:.2f}×", "")
    shown.caption = f"{out}: samples.png, trajectory.safetensors, summary.json"
    print_table(title, shown)
