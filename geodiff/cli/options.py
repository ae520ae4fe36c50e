"""Options that several commands share, so that they read and behave alike."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from geodiff.base.arguments import SEED_MAX, check_integer
from geodiff.data import BUILTIN_NAMES, Dataset, load
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.distributed import job
from geodiff.solvers.registry import ALLOWED

_THREADS_MAX = 1024  # OpenMP ends the process, and not in our words, where it cannot make all of them

Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="PATH|NAME",
        help="A .npy, .npz, .safetensors, .pt, .parquet, .tar or IDX file, a zip of EDM, a folder of any of them, of "
        "images or CIFAR batches, or one of "
        f"{', '.join(BUILTIN_NAMES)}.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything that is drawn at random.", min=0, max=SEED_MAX)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to standard output and nothing else.")]
Backend = Annotated[str, typer.Option("--backend", help="auto, or a backend that `geodiff info` lists.")]
Tolerance = Annotated[float, typer.Option("--tol", help="Relative error allowed in a denoiser output.")]
Threads = Annotated[
    int | None, typer.Option("--threads", help="Threads of the CPU kernels.", show_default="as PyTorch chooses")
]
Solver = Annotated[str, typer.Option("--solver", help=f"One of {ALLOWED}.")]
Output = Annotated[Path, typer.Option("--out", metavar="PATH", help="File to write; an old one is replaced when done.")]


def open_denoiser(data: str, backend: str, tol: float, threads: int | None) -> tuple[Dataset, OptimalDenoiser]:
    """The data set and its denoiser, on as many threads as asked; under torchrun each process takes its rows."""
    set_threads(threads)
    dataset = load(data)
    return dataset, job.denoiser_over(dataset.data, backend=backend, tol=tol)


def set_threads(threads: int | None) -> None:
    """Raises ValueError for fewer than one, or for more than any machine has cores."""
    if threads is not None:
        torch.set_num_threads(check_integer(threads, "threads", 1, _THREADS_MAX))


def noise_like(denoiser: OptimalDenoiser, count: int, seed: int) -> torch.Tensor:
    """z ~ N(0, I), [count, *shape] float32, on the denoiser's device and the same on each."""
    generator = torch.Generator().manual_seed(seed)
    check_integer(count, "num", 0)
    return torch.randn(count, *denoiser.shape, generator=generator).to(denoiser.data.device)
