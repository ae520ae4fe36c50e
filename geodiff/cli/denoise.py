"""`geodiff denoise`: the optimal denoiser on given noisy points, or on points of the data with noise added."""

import os
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from safetensors.torch import save_file
from torch import Tensor

from geodiff.base.arguments import check_integer, check_sigma
from geodiff.base.files import atomic_path
from geodiff.base.posterior import Posterior
from geodiff.cli.console import check_target, print_json, print_table, table
from geodiff.cli.option_errors import called, goes
from geodiff.cli.options import Backend, Data, Json, Seed, Threads, Tolerance, noise_like, open_denoiser
from geodiff.data import load
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.reference.formula import model_space

_ROWS_SHOWN = 20
_COLUMNS = ("point ", "log p ", "entropy ", "ess ", "‖r − x‖ ", "heaviest points (weight)")


def denoise(
    sigma: Annotated[float, typer.Option("--sigma", help="Standard deviation of the noise in the points.")],
    data: Data = "digits",
    source: Annotated[
        Path | None,
        typer.Option("--input", metavar="PATH", help="The noisy points: any file or folder that --data takes."),
    ] = None,
    num: Annotated[
        int | None, typer.Option("--num", help="Instead: so many points of the data with noise added.")
    ] = None,
    topk: Annotated[int, typer.Option("--topk", help="Name so many of the heaviest data points for each.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="PATH", help="Write .safetensors (everything) or .npy (the denoised points)."),
    ] = None,
    seed: Seed = 0,
    backend: Backend = "auto",
    tol: Tolerance = 1e-5,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Denoise points: the posterior mean, log-probability, entropy and effective number of data points."""
    goes("without --input", source is None, "num")
    check_target("--out", out, ".safetensors", ".npy")
    dataset, denoiser = open_denoiser(data, backend, tol, threads)
    if source is None:
        x = _noisy_points(denoiser, 8 if num is None else num, sigma, seed)
    else:
        with called(source="--input"):
            points = load(source).data
        x = model_space(points, torch.float32).to(denoiser.data.device)
    posterior = denoiser.posterior(x, sigma, topk=topk)
    if out is not None:
        _write(out, x, sigma, posterior)

    rows = _rows(x, posterior)
    if json:
        document = {
            "data": dataset.name,
            "N": len(dataset),
            "shape": list(denoiser.shape),
            "sigma": sigma,
            "backend": denoiser.backend,
            "out": None if out is None else str(out),
            "points": rows,
        }
        print_json(document)
        return
    shown = table(*_COLUMNS)
    for row in rows[:_ROWS_SHOWN]:
        heaviest = "  ".join(f"{i} ({w:.3g})" for i, w in zip(row["indices"], row["weights"], strict=True))
        numbers = [f"{row[key]:.6g}" for key in ("log_prob", "entropy", "ess", "moved")]
        shown.add_row(str(row["point"]), *numbers, heaviest)
    if len(rows) > _ROWS_SHOWN:
        shown.caption = f"and {len(rows) - _ROWS_SHOWN} more: --json or --out has them all"
    print_table(f"{len(rows)} points over {dataset.name} at σ = {sigma:g}", shown)


def _noisy_points(denoiser: OptimalDenoiser, count: int, sigma: float, seed: int) -> Tensor:
    """x = x_i + sigma z for random i, [count, *shape] float32."""
    check_integer(count, "num", 0)
    check_sigma(sigma, count)
    chosen = torch.randint(denoiser.data.shape[0], (count,), generator=torch.Generator().manual_seed(seed))
    points = model_space(denoiser.data[chosen.to(denoiser.data.device)], torch.float32)
    return points + sigma * noise_like(denoiser, count, seed + 1)


def _rows(x: Tensor, posterior: Posterior) -> list[dict[str, Any]]:
    """One record per point; `moved` is |r - x|."""
    moved = (posterior.mean - x).flatten(1).norm(dim=1)
    columns = (posterior.log_prob, posterior.entropy, posterior.ess, moved, posterior.indices, posterior.weights)
    names = ("log_prob", "entropy", "ess", "moved", "indices", "weights")
    values = zip(*(column.tolist() for column in columns), strict=True)
    return [{"point": point, **dict(zip(names, row, strict=True))} for point, row in enumerate(values)]


def _write(path: Path, x: Tensor, sigma: float, posterior: Posterior) -> None:
    """.npy: the denoised points alone; .safetensors: the noisy points as well and every field of the posterior."""
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".npy":
            np.save(temporary, posterior.mean.cpu().numpy())
            return
        tensors = {"input": x, **{name: value for name, value in vars(posterior).items() if isinstance(value, Tensor)}}
        tensors = {name: value.cpu().contiguous() for name, value in tensors.items()}
        save_file(tensors, os.fspath(temporary), {"format": "geodiff.posterior", "sigma": repr(sigma)})
