"""Ranks of one thread against one rank of one thread, as many rows a rank: torch.distributed (gloo) on one machine.

    python bench/weak_scaling.py OUT.json [DATA [ROUNDS]]      CIFAR-10 by default: GEODIFF_CIFAR10, a .npy

Both hold their processes all along and take turns, call by call, so that what else the machine does meets both. Each
rank keeps to a core of its own, and queries are of images from all parts alike. `alone` is the same call without the
others' answers, each rank's own denoiser over its rows, while the others do as much: what the cores take from each
other (memory, clock) without a word being said.
"""

import itertools
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.distributed as dist

import geodiff
from geodiff.distributed import ShardedDenoiser
from geodiff.measure import record

ASKS = [(batch, sigma) for batch in (1, 64) for sigma in (40.0, 1.0)]
NAMES = {1: "one_rank", 2: "two_ranks"}


def rank_of(group: str, rank: int, size: int, rows: int, path: str, orders: Connection) -> None:
    """Answers orders (batch, sigma, alone) with seconds by the clock and of the processor; None ends it."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{group}", rank=rank, world_size=size)
    data = geodiff.data.load(path).data[rank * rows : (rank + 1) * rows].clone()
    merged, own = ShardedDenoiser(data), geodiff.OptimalDenoiser(data)
    small = torch.zeros(1, dtype=torch.float64)
    while (order := orders.recv()) is not None:
        batch, sigma, alone = order
        denoiser = own if alone else merged
        x = torch.zeros(batch, *data.shape[1:])
        mine = torch.arange(batch) % size == rank
        x[mine] = data[: int(mine.sum())].float() / 127.5 - 1
        dist.all_reduce(x)
        x += sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        dist.all_reduce(small)
        began, busy = time.perf_counter(), time.process_time()
        denoiser(x, sigma)
        orders.send((time.perf_counter() - began, time.process_time() - busy))
    dist.destroy_process_group()


def main(out: Path, path: str, rounds: int) -> None:
    context = multiprocessing.get_context("fork")  # this process has used no threads yet
    loaded = geodiff.data.load(path)
    rows = len(loaded) // 2
    teams = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in (1, 2):
            pipes = [context.Pipe() for _ in range(size)]
            for rank, (_, theirs) in enumerate(pipes):
                arguments = (f"{folder}/{size}", rank, size, rows, path, theirs)
                context.Process(target=rank_of, args=arguments, daemon=True).start()
            teams[size] = [ours for ours, _ in pipes]

        def asked(size: int, ask: tuple[int, float, bool]) -> tuple[float, float]:
            for pipe in teams[size]:
                pipe.send(ask)
            said = [pipe.recv() for pipe in teams[size]]
            return max(clock for clock, _ in said), max(busy for _, busy in said)

        found = []
        for batch, sigma in ASKS:
            seconds: dict[tuple[int, bool], list[tuple[float, float]]] = {}
            for _ in range(rounds):
                for way in itertools.product((1, 2), (False, True)):
                    seconds.setdefault(way, []).append(asked(way[0], (batch, sigma, way[1])))
            result: dict[str, float] = {"batch": batch, "sigma": sigma, "rows_a_rank": rows}
            for place, kind in enumerate(("clock", "processor")):
                taken = {way: [both[place] for both in pairs[1:]] for way, pairs in seconds.items()}
                middle = {way: statistics.median(values) for way, values in taken.items()}
                for (size, alone), value in middle.items():
                    result[f"{NAMES[size]}{'_alone' if alone else ''}_{kind}"] = value
                result[f"efficiency_{kind}"] = middle[1, False] / middle[2, False]
                result[f"efficiency_{kind}_of_the_fastest"] = min(taken[1, False]) / min(taken[2, False])
                result[f"efficiency_{kind}_alone"] = middle[1, True] / middle[2, True]
            found.append(result)
            print(json.dumps(found[-1]), flush=True)
        shape = list(loaded.data.shape[1:])
        record.write(out, record.document("bench/weak_scaling.py", shape=shape, rounds=rounds - 1, results=found))
        for pipes in teams.values():
            for pipe in pipes:
                pipe.send(None)


if __name__ == "__main__":
    path = sys.argv[2] if len(sys.argv) > 2 else os.environ["GEODIFF_CIFAR10"]
    main(Path(sys.argv[1]), path, int(sys.argv[3]) if len(sys.argv) > 3 else 25)
