"""A data set of ImageNet-64's shape in a mapped file: time, bytes read and memory of one evaluation, and its error.

    python bench/out_of_core.py make PATH [ROWS]           deterministic: crops of CIFAR-10, upsampled and perturbed
    python bench/out_of_core.py warm PATH OUT.json
    python bench/out_of_core.py cold PATH OUT.json         adds to it, and so does
    python bench/out_of_core.py check PATH OUT.json        the error of 64 queries against blockwise float64

`make` takes its pictures from GEODIFF_CIFAR10, a .npy of CIFAR-10 [N, 3, 32, 32] or [N, 3072] uint8. ImageNet-64
has 1,281,167 rows of 12,288 bytes, 15.7 GB. Each measurement is a process of its own, which opens the file and answers:
warm, the page cache holding the file as far as memory allows; cold, the file having been dropped from it. Beside it
stands what reading the file takes in the same state, by ranges of 8 MiB on as many threads.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import geodiff
from geodiff import reference
from geodiff.measure import record

ROWS, SIDE = 1_281_167, 64
PIECE = 2048
SIGMAS, CHECKED = (40.0, 1.0), 64
ROUNDS = 3  # which take turns with plain reading: disks are not equally fast at all times
BLOCK = 1024  # rows in float64 at a time


def make(path: Path, rows: int) -> None:
    """Row i: a crop of 24 to 32 pixels of picture i mod N, mirrored or not, to 64 x 64, with noise of +-6."""
    pictures = torch.from_numpy(np.load(os.environ["GEODIFF_CIFAR10"]).reshape(-1, 3, 32, 32))
    out = np.lib.format.open_memmap(path, "w+", np.uint8, (rows, 3, SIDE, SIDE))
    for first in range(0, rows, PIECE):
        generator = torch.Generator().manual_seed(first)
        chosen = torch.arange(first, min(rows, first + PIECE))
        side = int(torch.randint(24, 33, (), generator=generator))
        top, left = (int(torch.randint(0, 33 - side, (), generator=generator)) for _ in range(2))
        crops = pictures[chosen % len(pictures), :, top : top + side, left : left + side].float()
        if int(torch.randint(0, 2, (), generator=generator)):
            crops = crops.flip(3)
        large = torch.nn.functional.interpolate(crops, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        noise = torch.randint(-6, 7, large.shape, generator=generator, dtype=torch.int8)
        out[first : first + len(chosen)] = (large + noise).round().clamp(0, 255).byte().numpy()
        if first % (64 * PIECE) == 0:
            out.flush()


class Memory:
    """The most memory of this process' own (the page cache aside) within the block, in bytes."""

    def __enter__(self) -> "Memory":
        self.most, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    self.most = max(self.most, int(line.split()[1]) * 1024)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def bytes_read() -> int:
    """Of this process, from the disk."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["read_bytes"])


def sequential(path: Path) -> float:
    """Seconds that reading the file in ranges of 8 MiB on as many threads as torch has takes."""
    size, count, block = path.stat().st_size, torch.get_num_threads(), 2**23
    began = time.perf_counter()

    def read(part: int) -> None:
        place, end, buffer = size * part // count, size * (part + 1) // count, bytearray(block)
        with path.open("rb", buffering=0) as file:
            file.seek(place)
            while place < end and (got := file.readinto(buffer)):
                place += got

    threads = [threading.Thread(target=read, args=(part,)) for part in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def drop(path: Path) -> None:
    """Out of the page cache: the next reading is from the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def queries(data: torch.Tensor, batch: int, sigma: float) -> torch.Tensor:
    """x_i + sigma z, [B, *shape] float32."""
    chosen = torch.randint(0, len(data), (batch,), generator=torch.Generator().manual_seed(1))
    noise = torch.randn(batch, *data.shape[1:], generator=torch.Generator().manual_seed(2))
    return reference.model_space(data[chosen].flatten(1), torch.float32).reshape(noise.shape) + sigma * noise


def evaluation(path: Path, batch: int, sigma: float, state: str) -> dict[str, Any]:
    """One evaluation of a denoiser that has just been opened."""
    if state == "cold":
        drop(path)
    read = bytes_read()
    with Memory() as memory:
        began = time.perf_counter()
        data = geodiff.data.load(path).data
        denoiser = geodiff.OptimalDenoiser(data)
        opened = time.perf_counter() - began
        x = queries(data, batch, sigma)
        began = time.perf_counter()
        denoiser(x, sigma)
        seconds = time.perf_counter() - began
    return {
        "state": state,
        "rows": len(data),
        "bytes": data.numel(),
        "batch": batch,
        "sigma": sigma,
        "open_seconds": opened,
        "seconds": seconds,
        "read_bytes": bytes_read() - read,
        "own_memory": memory.most,
        "threads": torch.get_num_threads(),
    }


def reading(path: Path, state: str) -> float:
    """Seconds of reading it all."""
    if state == "cold":
        drop(path)
    return sequential(path)


def blockwise(data: torch.Tensor, x: torch.Tensor, sigma: float) -> torch.Tensor:
    """r in float64, block by block, merged by log-sum-exp: [B, d]. Of |v - x|^2 = |v|^2 - 2 <v, x> + |x|^2, the last is
    common to all rows; v is taken from the middle of the range, so that the rest rounds to 1e-16 of some thousand."""
    flat, points = data.flatten(1), x.flatten(1).double()
    top = torch.full((len(x), 1), -torch.inf, dtype=torch.float64)
    total, mean = torch.zeros_like(top), torch.zeros_like(points)
    for rows in flat.split(BLOCK):
        v = reference.model_space(rows, torch.float64)
        logits = (points @ v.T - v.square().sum(1) / 2) / sigma**2
        new = torch.maximum(top, logits.amax(1, keepdim=True))
        weights, scale = (logits - new).exp(), (top - new).exp()
        total, mean, top = total * scale + weights.sum(1, keepdim=True), mean * scale + weights @ v, new
    return mean / total


def note(out: Path, **found: Any) -> None:
    """Puts lists of results into the document under their names, beside what is there."""
    before = json.loads(out.read_text()) if out.exists() else {}
    record.write(out, {**before, **record.document("bench/out_of_core.py", **found)})


def asked(*arguments: object) -> Any:
    """What a process of its own says."""
    command = [sys.executable, __file__, *map(str, arguments)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(said.splitlines()[-1], flush=True)
    return json.loads(said.splitlines()[-1])


def one_query(path: Path, state: str) -> list[dict[str, Any]]:
    """B = 1, in turns with plain reading."""
    results = []
    for sigma in SIGMAS:
        for _ in range(ROUNDS):
            seconds, found = asked("reading", path, state), asked("one", path, 1, sigma, state)
            spent = found["seconds"] if state == "warm" else found["open_seconds"] + found["seconds"]
            results.append({**found, "sequential_seconds": seconds, "share_of_sequential": seconds / spent})
    return results


def warm(path: Path, out: Path) -> None:
    """Opening it for the first time, and all sizes."""
    for kept in path.parent.glob(f"{path.name}.*.geodiff-*"):
        kept.unlink()
    asked("reading", path, "warm")
    note(out, first_opening=asked("one", path, 1, SIGMAS[0], "warm"))
    note(out, first_of_many=asked("one", path, CHECKED, SIGMAS[0], "warm"))  # which makes principal coordinates
    note(out, warm=one_query(path, "warm") + [asked("one", path, CHECKED, sigma, "warm") for sigma in SIGMAS])


def cold(path: Path, out: Path) -> None:
    """One query, after a first opening."""
    asked("one", path, 1, SIGMAS[0], "warm")
    note(out, cold=one_query(path, "cold"))


def check(path: Path, out: Path) -> None:
    """|r - r64| / |r64|, the largest of 64 queries of each level."""
    data = geodiff.data.load(path).data
    denoiser = geodiff.OptimalDenoiser(data)
    errors = []
    for sigma in SIGMAS:
        x = queries(data, CHECKED, sigma)
        exact = blockwise(data, x, sigma)
        error = (denoiser(x, sigma).double().flatten(1) - exact).norm(dim=1) / exact.norm(dim=1)
        errors.append({"sigma": sigma, "queries": len(x), "rows": len(data), "error": float(error.max())})
        print(json.dumps(errors[-1]), flush=True)
    note(out, errors=errors)


if __name__ == "__main__":
    command, path, *rest = sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]
    if command == "make":
        make(path, int(rest[0]) if rest else ROWS)
    elif command == "reading":
        print(json.dumps(reading(path, rest[0])))
    elif command == "one":
        print(json.dumps(evaluation(path, int(rest[0]), float(rest[1]), rest[2])))
    else:
        {"warm": warm, "cold": cold, "check": check}[command](path, Path(rest[0]))
