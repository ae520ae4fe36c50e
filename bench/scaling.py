"""How the CPU kernels scale: with N, threads and classes, in memory, to gradients, and over a whole trajectory.

    python bench/scaling.py --data cifar10_train.npy --out bench/results/scaling.json

Medians of interleaved rounds. The trajectory is 18 points of Heun, 35 evaluations, 64 samples.
"""

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import geodiff
from geodiff import reference
from geodiff.data import load
from geodiff.measure import record
from geodiff.measure.stopwatch import settled


def interleaved(calls: dict[Any, Callable[[], object]], rounds: int) -> dict[Any, float]:
    """Median milliseconds of each call, settled as in `geodiff.measure.stopwatch`; the first round warms up."""
    times: dict[Any, list[float]] = {key: [] for key in calls}
    for turn in range(rounds + 1):
        for key, call in calls.items():
            _, seconds = settled(call)
            if turn:
                times[key].append(seconds * 1e3)
    return {key: statistics.median(found) for key, found in times.items()}


def queries(data: Tensor, batch: int, sigma: float) -> Tensor:
    g = torch.Generator().manual_seed(0)
    clean = reference.model_space(data[torch.randint(len(data), (batch,), generator=g)], torch.float32)
    return clean + sigma * torch.randn(clean.shape, generator=g)


def scaling_with_n(data: Tensor, rounds: int) -> list[dict[str, float]]:
    """Time per row at 1, 2 and 4 times a size, relative to that size: 1 means linear. From N/4, and from N.

    Beyond N the rows are those of the data mirrored and turned. Queries are noisy points of the smallest part.
    """
    more = torch.cat([data, data.flip(-1), data.flip(-2), data.flip(-1, -2)])
    out = []
    for first in (len(data) // 4, len(data)):
        denoisers = {n: geodiff.OptimalDenoiser(more[:n]) for n in (first, 2 * first, 4 * first)}
        for sigma in (40.0, 1.0):
            for batch in (1, 16, 64):
                x = queries(data[: len(data) // 4], batch, sigma)
                found = interleaved({n: partial(d, x, sigma) for n, d in denoisers.items()}, rounds)
                row: dict[str, float] = {"sigma": sigma, "batch": batch}
                for n, milliseconds in found.items():
                    row[f"ms_{n}"] = round(milliseconds, 3)
                    row[f"per_row_{n}"] = round(milliseconds / n / (found[first] / first), 3)
                out.append(row)
    return out


def scaling_with_threads(data: Tensor, rounds: int) -> list[dict[str, float]]:
    """Time on one thread over time on all."""
    denoiser, threads = geodiff.OptimalDenoiser(data), torch.get_num_threads()
    out = []

    def on(count: int, x: Tensor, sigma: float) -> None:
        torch.set_num_threads(count)
        denoiser(x, sigma)

    for sigma in (40.0, 1.0):
        for batch in (1, 16, 64, 256):
            x = queries(data, batch, sigma)
            found = interleaved({n: partial(on, n, x, sigma) for n in (1, threads)}, rounds)
            ratio = round(found[1] / found[threads], 3)
            out.append({"sigma": sigma, "batch": batch, "threads": threads, "speedup": ratio})
    torch.set_num_threads(threads)
    return out


def memory(data: Tensor) -> list[dict[str, float]]:
    """MiB by which the process grows, at its peak, during one call."""
    denoiser, out = geodiff.OptimalDenoiser(data), []

    def status(key: str) -> int:
        found = re.search(key + r":\s+(\d+)", Path("/proc/self/status").read_text())
        assert found is not None
        return int(found.group(1))

    for sigma in (40.0, 5.0, 1.0):
        for batch in (16, 64, 256):
            x = queries(data, batch, sigma)
            Path("/proc/self/clear_refs").write_text("5")
            before = status("VmRSS")
            denoiser(x, sigma)
            out.append({"sigma": sigma, "batch": batch, "growth_mib": round((status("VmHWM") - before) / 1024, 1)})
    return out


def one_class(data: Tensor, rounds: int, batch: int = 16) -> list[dict[str, float]]:
    """Time of a call that sees one class of ten, relative to one that sees all data; calls of one kind in a row."""
    denoiser, out = geodiff.OptimalDenoiser(data, labels=torch.arange(len(data)) % 10), []
    classes = torch.full((batch,), 3)
    for sigma in (80.0, 20.0, 5.0, 1.0):
        x = queries(data, batch, sigma)
        every = interleaved({"all": partial(denoiser, x, sigma)}, rounds)["all"]
        one = interleaved({"one": partial(denoiser, x, sigma, classes)}, rounds)["one"]
        out.append({"sigma": sigma, "batch": batch, "all_ms": round(every, 3), "ratio": round(one / every, 3)})
    return out


def gradients(data: Tensor, rounds: int, batch: int = 16) -> list[dict[str, float]]:
    """Time of v^T J, without the evaluation before it, relative to that evaluation."""
    denoiser, out = geodiff.OptimalDenoiser(data), []
    for sigma in (80.0, 20.0, 5.0, 1.0):
        x = queries(data, batch, sigma)
        v, recorded = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)), x.clone().requires_grad_()
        r = denoiser(recorded, sigma)
        backward = partial(torch.autograd.grad, r, recorded, v, retain_graph=True)
        found = interleaved({"evaluation": partial(denoiser, x, sigma), "gradient": backward}, rounds)
        ratio = round(found["gradient"] / found["evaluation"], 3)
        out.append({"sigma": sigma, "batch": batch, "gradient_over_evaluation": ratio})
    return out


def overhead(calls: int = 2000) -> dict[str, float]:
    """Microseconds of one query against 500 points of 64 numbers, and of the core alone on the same query."""
    data = torch.randint(0, 256, (500, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    denoiser, x = geodiff.OptimalDenoiser(data, backend="cpu"), torch.randn(1, 64)
    within: list[float] = []

    def core(*args: Any, **options: Any) -> None:
        start = time.perf_counter()
        combine(*args, **options)
        within.append(time.perf_counter() - start)

    engine: Any = denoiser._points.engines.serving()
    combine = engine._data.combine
    engine._data = SimpleNamespace(combine=core)
    whole: list[float] = []
    for _ in range(calls):
        start = time.perf_counter()
        denoiser(x, 1.0)
        whole.append(time.perf_counter() - start)
    call, kernel = (round(statistics.median(times) * 1e6, 1) for times in (whole, within))
    return {"call_us": call, "core_us": kernel, "python_us": round(call - kernel, 1)}


def trajectory(data: Tensor, batch: int = 64) -> dict[str, float]:
    """Seconds for one trajectory with our denoiser, and with the plain two-product form in the same sampler."""
    points = reference.model_space(data, torch.float32).flatten(1)
    half_norms = points.square().sum(1) / 2
    sigmas = geodiff.schedules.edm()
    noise = sigmas[0].item() * torch.randn(batch, *data.shape[1:], generator=torch.Generator().manual_seed(0))

    def plain(x: Tensor, sigma: Tensor) -> Tensor:
        return reference.two_product(x.flatten(1), points, sigma.item(), half_norms).reshape(x.shape)

    denoiser = geodiff.OptimalDenoiser(data)
    denoiser(noise, 80.0)
    start = time.perf_counter()
    ours = geodiff.sample(denoiser, noise, sigmas)
    middle = time.perf_counter()
    theirs = geodiff.sample(plain, noise, sigmas)
    end = time.perf_counter()
    apart = (ours.states[-1] - theirs.states[-1]).flatten(1).norm(dim=1)
    return {
        "batch": batch,
        "evaluations": 35,
        "geodiff_s": round(middle - start, 3),
        "torch_float32_s": round(end - middle, 3),
        "ratio": round((end - middle) / (middle - start), 2),
        "same_data_point": int((apart < 1e-2).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    dataset = load(arguments.data)
    data = dataset.data.clone(memory_format=torch.preserve_format)  # in memory: no page faults of the file are timed
    document = record.document(
        "bench/scaling.py",
        data={"name": dataset.name, "shape": list(data.shape), "dtype": str(data.dtype).removeprefix("torch.")},
        memory=memory(data),
        threads=scaling_with_threads(data, arguments.rounds),
        n=scaling_with_n(data, arguments.rounds),
        one_class_of_ten=one_class(data, arguments.rounds),
        gradients=gradients(data, arguments.rounds),
        trajectory=trajectory(data),
        overhead=overhead(),
    )
    record.write(arguments.out, document)
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
