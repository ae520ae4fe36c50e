"""The main job, watched: sample real digits, and at every evaluation measure the kernel's time and error.

At each evaluation the denoiser, the plain PyTorch two-product form in float32 and the float64 reference get the same
input; the first two are timed in turns on the same threads.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from geodiff import reference
from geodiff.base.files import atomic_path
from geodiff.base.finite import finite
from geodiff.data import Dataset
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.measure import machine
from geodiff.output import pictures
from geodiff.reference.contract import largest_error, largest_norm
from geodiff.schedules import karras
from geodiff.solvers import sample
from geodiff.solvers.trajectory import Trajectory

_REPEATS = 3  # timings per evaluation, of which the median counts


@dataclass(frozen=True)
class Evaluation:
    """One denoiser call on B queries: times in milliseconds, and contract 1's errors, the largest over the queries."""

    sigma: float
    kernel_ms: float
    torch_ms: float
    error: float
    torch_error: float


class Watched:
    """A drop-in for the denoiser that records an `Evaluation` at every call."""

    def __init__(self, denoiser: OptimalDenoiser, progress: Callable[[], object]) -> None:
        self.denoiser = denoiser
        self.evaluations: list[Evaluation] = []
        self._progress = progress
        self._points = reference.model_space(denoiser.data, torch.float32).contiguous()
        self._half_norms = self._points.flatten(1).square().sum(1) / 2
        self._largest_norm = largest_norm(denoiser.data)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        kernel: list[float] = []
        plain: list[float] = []
        for _ in range(_REPEATS):
            denoised = _timed(kernel, lambda: self.denoiser(x, sigma))
            two_product = _timed(plain, lambda: reference.two_product(x, self._points, sigma, self._half_norms))
        with machine.one_thread():
            exact = reference.denoise(x.double(), self.denoiser.data, sigma)
        self.evaluations.append(
            Evaluation(
                sigma=float(sigma),
                kernel_ms=statistics.median(kernel),
                torch_ms=statistics.median(plain),
                error=largest_error(denoised, exact, self._largest_norm),
                torch_error=largest_error(two_product, exact, self._largest_norm),
            )
        )
        self._progress()
        return denoised


def run(
    dataset: Dataset,
    out: Path,
    *,
    num: int = 64,
    steps: int = 18,
    seed: int = 0,
    tol: float = 1e-5,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, object]:
    """Draws `num` samples with Heun's method on `steps` Karras levels; returns what summary.json holds.

    Writes samples.png, trajectory.safetensors and summary.json to the folder `out`, made if need be. "ok" in the
    summary says whether every evaluation was within `tol` of the reference.
    progress: called after each of the 2·steps - 1 evaluations.
    Raises ValueError for data that are no pictures.
    """
    pictures.check_available()
    pictures.check_shape(dataset.data.shape[1:])
    out.mkdir(parents=True, exist_ok=True)
    denoiser = OptimalDenoiser(dataset.data, tol=tol)
    sigmas = karras(steps)
    generator = torch.Generator().manual_seed(seed)
    noise = sigmas[0].item() * torch.randn(num, *dataset.data.shape[1:], generator=generator)
    denoiser(noise, sigmas[0])  # the first call starts the threads
    watched = Watched(denoiser, progress)

    began = time.perf_counter()
    trajectory = sample(watched, noise, sigmas, "heun")
    seconds = time.perf_counter() - began

    summary = _summary(dataset, denoiser, trajectory, watched.evaluations, tol)
    summary |= {"seed": seed, "seconds_with_reference": seconds, "machine": machine.describe()}
    trajectory.metadata |= {"data": dataset.name, "schedule": "karras", "seed": str(seed), "backend": denoiser.backend}
    trajectory.save(out / "trajectory.safetensors")
    title = f"{num} samples of the optimal denoiser over {len(dataset):,} points ({dataset.name}), {steps} Heun steps"
    pictures.save_trajectories(out / "samples.png", trajectory, title=title)
    with atomic_path(out / "summary.json") as temporary:
        text = json.dumps(finite(summary), indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return summary


def _summary(
    dataset: Dataset, denoiser: OptimalDenoiser, trajectory: Trajectory, evaluations: list[Evaluation], tol: float
) -> dict[str, object]:
    """Medians over the evaluations; the ratio is that of the medians."""
    kernel_ms = statistics.median(evaluation.kernel_ms for evaluation in evaluations)
    torch_ms = statistics.median(evaluation.torch_ms for evaluation in evaluations)
    largest = max(evaluation.error for evaluation in evaluations)
    return {
        "data": dataset.name,
        "N": len(dataset),
        "d": dataset.data[0].numel(),
        "B": trajectory.states.shape[1],
        "dtype": str(dataset.data.dtype).removeprefix("torch."),
        "backend": denoiser.backend,
        "isa": machine.describe()["isa"] if denoiser.backend == "cpu" else None,
        "threads": torch.get_num_threads(),
        "schedule": "karras",
        "solver": "heun",
        "steps": len(trajectory.denoised),
        "evaluations": len(evaluations),
        "kernel_ms": kernel_ms,
        "torch_ms": torch_ms,
        "ratio": torch_ms / kernel_ms,
        "largest_error": largest,
        "largest_error_of_torch": max(evaluation.torch_error for evaluation in evaluations),
        "tol": tol,
        "ok": largest <= tol,
        "per_evaluation": [asdict(evaluation) for evaluation in evaluations],
    }


def _timed(times: list[float], call: Callable[[], Tensor]) -> Tensor:
    """call(), with its wall-clock time in milliseconds appended to `times`."""
    began = time.perf_counter()
    result = call()
    times.append((time.perf_counter() - began) * 1e3)
    return result
