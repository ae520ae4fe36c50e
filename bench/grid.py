"""Few rows and many, short and long ones: our CPU kernels beside PyTorch, and the worst cell of the grid.

    python bench/grid.py --data cifar10_train.npy --out bench/results/cpu_grid_MACHINE.json

Rows are the images of --data, resized to 8 x 8 and 28 x 28 grey, 32 x 32 and 64 x 64 pixels in colour: d = 64,
784, 3072, 12288. Beyond their number they come mirrored and turned. sigma = 40, 6 and 1 are meant for d = 3072: on
fewer numbers they go down with the square root of d, so that as many rows count. Where the float32 copies of both
forms of PyTorch do not fit the memory that is free, one is asked; where that does not fit either, the size is left out
and said so. What is measured is written size by size, and the same command goes on from there.

The worst cell is the one that is furthest behind the rule: as fast as the fastest float32 form of PyTorch where
that takes 1 ms or more, at most 0.15 ms behind it where it takes less.
"""

import argparse
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from geodiff.cli.console import progress_bar
from geodiff.data import load
from geodiff.measure import baseline_process, benchmark, record

#: Side and channels of the rows.
SHAPES = {64: (8, 1), 784: (28, 1), 3072: (32, 3), 12288: (64, 3)}
ROWS = (500, 5000, 50000, 200000)
BATCHES = (1, 4, 16, 64, 256)
SIGMAS = (40.0, 6.0, 1.0)
PEERS = ("torch-softmax", "torch-addmm")
#: Below so many milliseconds of PyTorch's, what counts is how many more we take.
SMALL, BEHIND = 1.0, 0.15


@dataclass
class Found:
    """One cell. margin: how far from the rule; below 1 it is broken."""

    rows: int
    d: int
    sigma: float
    batch: int
    ours_ms: float
    torch_ms: float
    ratio: float
    margin: float
    error: float
    peers: int  # forms of PyTorch that took part


def rows_of(images: Tensor, count: int, d: int) -> Tensor:
    """[count, channels, side, side] uint8 from images [N, 3, 32, 32] uint8."""
    side, channels = SHAPES[d]
    parts, left = [], count
    for turned in (images, images.flip(-1), images.flip(-2), images.flip(-1, -2), images.transpose(-1, -2)):
        for part in turned[: max(left, 0)].split(2048):
            grey = part.float() if channels == 3 else part.float().mean(1, keepdim=True)
            if side != part.shape[-1]:
                grey = interpolate(grey, (side, side), mode="area" if side < part.shape[-1] else "bilinear")
            parts.append(grey.round().to(torch.uint8))
        left -= len(turned)
    return torch.cat(parts)


def margin(ours: float, torch_ms: float) -> float:
    """1 or more where the rule is kept: the ratio, or for small problems how much of what is allowed is left."""
    return torch_ms / ours if torch_ms >= SMALL else (torch_ms + BEHIND) / ours


def peers_that_fit(count: int, d: int) -> list[str]:
    """Each has a float32 copy and logits of its own; the rows are held twice while they are made."""
    free = 0.85 * os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") - 2 * count * d
    return list(PEERS[: max(0, int(free // (count * (4.0 * d + 8.0 * max(BATCHES)))))])


def measure(images: Tensor, rounds: int, count: int, d: int, peers: list[str]) -> list[Found]:
    """All cells of a size."""
    data = rows_of(images, count, d)
    ours = benchmark.denoisers_for(data, benchmark.our_variants(["cpu"]), [1e-5])
    with baseline_process.opened(data, peers) as opened:
        bench = benchmark.Bench(data, ours, opened, rounds)
        levels = [level * min(1.0, math.sqrt(d / 3072)) for level in SIGMAS]
        return [_found(bench.run(sigma, batch), count, d) for sigma in levels for batch in BATCHES]


def _found(cell: benchmark.Cell, count: int, d: int) -> Found:
    (ours,), baseline = cell.ours, cell.baseline
    if not ours.milliseconds or baseline is None:
        raise SystemExit(
            f"N = {count}, d = {d}, sigma = {cell.sigma:g}, B = {cell.batch}: {ours.note or 'no peer ran'}"
        )
    took, theirs = ours.median, baseline.median
    where, times = (count, d, cell.sigma, cell.batch), (took, theirs, theirs / took, margin(took, theirs))
    return Found(*where, *times, ours.error, len(cell.peers))


def kept(path: Path, document: dict[str, Any]) -> list[Found]:
    """Cells that an earlier run has written, of the same data, commit and machine."""
    if not path.exists():
        return []
    before = json.loads(path.read_text())
    for name in ("commit", "versions", "machine", "data", "rounds"):
        if before.get(name) != document[name]:
            raise SystemExit(f"{path}: {name} was {before.get(name)}, is {document[name]}; name another --out")
    return [Found(**cell) for cell in before["cells"]]


def worst_of(cells: list[Found]) -> Found:
    """The cell that is furthest behind the rule, or least ahead of it."""
    return min(cells, key=lambda cell: cell.margin)


def write(path: Path, document: dict[str, Any], cells: list[Found]) -> None:
    """What has been measured so far."""
    written = {**document, "worst": asdict(worst_of(cells)), "cells": [asdict(cell) for cell in cells]}
    record.write(path, written)


def markdown(cells: list[Found]) -> str:
    """The slowest of both sigmas and every batch: a row for each N, a column for each d."""
    lengths = sorted({cell.d for cell in cells})
    lines = ["| N | " + " | ".join(f"d = {d}" for d in lengths) + " |", "| --- |" + " --- |" * len(lengths)]
    for count in sorted({cell.rows for cell in cells}):
        entries = []
        for d in lengths:
            here = [cell for cell in cells if (cell.rows, cell.d) == (count, d)]
            entries.append("—")
            if here:
                entries[-1] = f"{worst_of(here).ratio:.1f}x (B = {worst_of(here).batch})"
        lines.append(f"| {count:,} | " + " | ".join(entries) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, action="append", help="Only this N; may be repeated.")
    parser.add_argument("--length", type=int, action="append", choices=list(SHAPES), help="Only this d.")
    arguments = parser.parse_args()
    dataset = load(arguments.data)
    sizes = [(n, d) for d in arguments.length or SHAPES for n in arguments.rows or ROWS]
    what = "bench/grid.py: medians in ms, interleaved; ratio to the faster of two float32 forms of PyTorch"
    document = record.document(what, data=dataset.name, rounds=arguments.rounds)
    cells = kept(arguments.out, document)
    left_out = []
    with progress_bar() as bar:
        for count, d in bar.track(sizes, description="timing"):
            if any((cell.rows, cell.d) == (count, d) for cell in cells):
                continue
            if not (peers := peers_that_fit(count, d)):
                left_out.append(f"N = {count}, d = {d}: a float32 copy is not for this machine's memory")
                continue
            cells += measure(dataset.data, arguments.rounds, count, d, peers)
            write(arguments.out, document, cells)
    if not cells:
        raise SystemExit("\n".join(left_out))
    print(markdown(cells), *left_out, f"worst: {worst_of(cells)}", sep="\n")


if __name__ == "__main__":
    main()
