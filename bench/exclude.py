"""What leaving a point out of the data costs a call: at most 5 %.

    python bench/exclude.py --data cifar10_train.npy --out bench/results/cpu_exclude_zen3.json

A call without `exclude` and one with it follow each other, in either order by turns; what is told is the median
of their ratios and the interval that holds it in 95 % of 1,000 bootstrap samples. "again" is the call against itself,
which shows what the clock can tell; "own" leaves out the point that a query was made from, "another" one far from it.
"""

import argparse
import json
import random
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

import geodiff
from geodiff import reference
from geodiff.data import load
from geodiff.measure import record

CASES = [(1, 0.5), (1, 40.0), (4, 1.0), (16, 0.5), (16, 40.0), (64, 1.0), (64, 40.0)]


def interval(ratios: list[float]) -> dict[str, float | int]:
    """Median, and the bounds of 95 % of the medians of bootstrap samples."""
    medians = sorted(statistics.median(random.choices(ratios, k=len(ratios))) for _ in range(1000))
    return {"ratio": statistics.median(ratios), "low": medians[24], "high": medians[974], "pairs": len(ratios)}


def seconds(denoiser: geodiff.OptimalDenoiser, x: Tensor, sigma: float, exclude: Tensor | None) -> float:
    start = time.perf_counter()
    denoiser(x, sigma, exclude=exclude)
    return time.perf_counter() - start


def measure(denoiser: geodiff.OptimalDenoiser, batch: int, sigma: float, budget: float) -> dict[str, object]:
    """One row of the result, from `budget` seconds of calls."""
    g = torch.Generator().manual_seed(batch)
    own = torch.randint(len(denoiser.data), (batch,), generator=g)
    x = reference.model_space(denoiser.data[own], torch.float32)
    x = x + sigma * torch.randn(x.shape, generator=g)
    asked = {"again": None, "own": own, "another": (own + 1) % len(denoiser.data)}
    ratios: dict[str, list[float]] = {name: [] for name in asked}
    plain: list[float] = []
    end = time.monotonic() + budget
    while time.monotonic() < end or len(plain) < 30:
        for name, exclude in random.sample(list(asked.items()), len(asked)):
            if len(plain) % 2:
                before, after = (seconds(denoiser, x, sigma, which) for which in (None, exclude))
            else:
                after, before = (seconds(denoiser, x, sigma, which) for which in (exclude, None))
            plain.append(before)
            ratios[name].append(after / before)
    found = {name: interval(values) for name, values in ratios.items()}
    return {"batch": batch, "sigma": sigma, "plain_ms": 1e3 * statistics.median(plain), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=8.0, help="for each of the batches and levels (default: 8)")
    asked = parser.parse_args()
    random.seed(0)
    dataset = load(asked.data)
    denoiser = geodiff.OptimalDenoiser(dataset.data)
    rows = []
    for batch, sigma in CASES:
        rows.append(measure(denoiser, batch, sigma, asked.seconds))
        print(json.dumps(rows[-1]), flush=True)
    if asked.out:
        what = "bench/exclude.py: time with exclude over time without, medians and their 95 % intervals"
        record.write(asked.out, record.document(what, data=dataset.name, N=len(dataset), rows=rows))


if __name__ == "__main__":
    main()
