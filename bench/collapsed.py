"""What an evaluation costs once every sample has collapsed: no pass over the data, a few rows of each sample.

    python bench/collapsed.py --data cifar10.npy --batch 64 --threads 1

Walks 40 Euler steps of a batch, in each of which r is evaluated once, and times them from one callback to the next: an
evaluation and its update. Those count in which all samples were answered from memory (`Trajectory.cost`). Medians of
wall time and of CPU time over all threads, which other programs on the machine change less.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from geodiff import OptimalDenoiser, sample, schedules
from geodiff.data import load
from geodiff.measure import record


def collapsed(denoiser: OptimalDenoiser, batch: int, rounds: int) -> dict[str, object]:
    """Medians in milliseconds over the evaluations that read no more than a few rows of each sample."""
    sigmas = schedules.karras(40)
    noise = float(sigmas[0]) * torch.randn(batch, *denoiser.shape, generator=torch.Generator().manual_seed(0))
    wall: list[float] = []
    spent: list[float] = []
    rows: list[int] = []
    highest = 0.0
    for _ in range(rounds):
        ticks: list[tuple[float, float]] = []

        def tick(*_: object, ticks: list[tuple[float, float]] = ticks) -> None:
            ticks.append((time.perf_counter(), time.process_time()))

        found = sample(denoiser, noise, sigmas, "euler", "end", tick)
        # Euler evaluates once a step: evaluation k ends before callback k.
        for k in range(1, len(ticks)):
            if found.cost[k].paths != {"remembered": batch}:
                continue
            wall.append(1e3 * (ticks[k][0] - ticks[k - 1][0]))
            spent.append(1e3 * (ticks[k][1] - ticks[k - 1][1]))
            rows.append(found.cost[k].rows)
            highest = max(highest, found.cost[k].sigma)
    if not wall:
        raise SystemExit("no evaluation was answered from memory for all samples")
    return {
        "batch": batch,
        "evaluations": len(wall),
        "from_sigma": round(highest, 3),
        "rows_read_median": statistics.median(rows),
        "wall_ms_median": round(statistics.median(wall), 3),
        "wall_ms_least": round(min(wall), 3),
        "cpu_ms_median": round(statistics.median(spent), 3),
        "cpu_ms_least": round(min(spent), 3),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", default="mnist5k")
    options.add_argument("--batch", type=int, nargs="+", default=[64])
    options.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()])
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--out", type=Path)
    asked = options.parse_args()
    denoiser = OptimalDenoiser(load(asked.data).data, backend="cpu").prepare()
    cells = []
    for threads in asked.threads:
        torch.set_num_threads(threads)
        for batch in asked.batch:
            cells.append({"threads": threads, **collapsed(denoiser, batch, asked.rounds)})
            print(json.dumps(cells[-1]), flush=True)
    if asked.out:
        data = {"name": Path(asked.data).name, "shape": list(denoiser.data.shape)}
        record.write(asked.out, record.document(str(__doc__).splitlines()[0], data=data, cells=cells))


if __name__ == "__main__":
    main()
