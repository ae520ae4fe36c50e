"""Ranks of one thread against one rank of one thread, as many rows a rank: torch.distributed (gloo) on one machine.

    python bench/weak_scaling.py OUT.json [DATA]      CIFAR-10 by default: GEODIFF_CIFAR10, a .npy

Both hold their processes all along and take turns, call by call, so that what else the machine does meets both.
"""

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
from geodiff.base.files import atomic_path
from geodiff.distributed import ShardedDenoiser
from geodiff.measure import machine

ASKS = [(batch, sigma) for batch in (1, 64) for sigma in (40.0, 1.0)]
ROUNDS = 9


def rank_of(group: str, rank: int, size: int, rows: int, path: str, orders: Connection) -> None:
    """Answers orders (batch, sigma) with seconds by the clock and of the processor; None ends it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{group}", rank=rank, world_size=size)
    data = geodiff.data.load(path).data[rank * rows : (rank + 1) * rows].clone()
    denoiser = ShardedDenoiser(data)
    small = torch.zeros(1, dtype=torch.float64)
    while (order := orders.recv()) is not None:
        batch, sigma = order
        generator = torch.Generator().manual_seed(0)
        x = torch.empty(batch, *data.shape[1:])
        if rank == 0:
            x.copy_(data[:batch]).div_(127.5).sub_(1)
        dist.broadcast(x, 0)
        x = x + sigma * torch.randn(x.shape, generator=generator)
        dist.all_reduce(small)
        began, busy = time.perf_counter(), time.process_time()
        denoiser(x, sigma)
        orders.send((time.perf_counter() - began, time.process_time() - busy))
    dist.destroy_process_group()


def main(out: Path, path: str) -> None:
    context = multiprocessing.get_context("fork")  # this process has used no threads yet
    rows = len(geodiff.data.load(path)) // 2
    teams = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in (1, 2):
            pipes = [context.Pipe() for _ in range(size)]
            for rank, (_, theirs) in enumerate(pipes):
                arguments = (f"{folder}/{size}", rank, size, rows, path, theirs)
                context.Process(target=rank_of, args=arguments, daemon=True).start()
            teams[size] = [ours for ours, _ in pipes]

        def asked(size: int, ask: tuple[int, float]) -> tuple[float, float]:
            for pipe in teams[size]:
                pipe.send(ask)
            said = [pipe.recv() for pipe in teams[size]]
            return max(clock for clock, _ in said), max(busy for _, busy in said)

        found = []
        for ask in ASKS:
            seconds: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
            for _ in range(ROUNDS):
                for size in (1, 2):
                    seconds[size].append(asked(size, ask))
            result: dict[str, float] = {"batch": ask[0], "sigma": ask[1], "rows_a_rank": rows}
            for place, kind in enumerate(("clock", "processor")):
                one, two = ([both[place] for both in seconds[size][1:]] for size in (1, 2))
                result |= {f"one_rank_{kind}": statistics.median(one), f"two_ranks_{kind}": statistics.median(two)}
                result[f"efficiency_{kind}"] = statistics.median(one) / statistics.median(two)
                result[f"efficiency_{kind}_of_the_fastest"] = min(one) / min(two)
            found.append(result)
            print(json.dumps(found[-1]), flush=True)
        document = {
            "what": "bench/weak_scaling.py",
            **machine.provenance(),
            "rounds": ROUNDS - 1,
            "results": found,
        }
        with atomic_path(out) as temporary:
            temporary.write_text(json.dumps(document, indent=1) + "\n")
        for pipes in teams.values():
            for pipe in pipes:
                pipe.send(None)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else os.environ["GEODIFF_CIFAR10"])
