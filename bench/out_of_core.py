"""A data set of ImageNet-64's shape in a mapped file: time, bytes read and memory of one evaluation, and its error.

    python bench/out_of_core.py make PATH [ROWS]      deterministic: crops of CIFAR-10, upsampled and perturbed
    python bench/out_of_core.py measure PATH OUT.json

`make` takes its pictures from GEODIFF_CIFAR10, a .npy of CIFAR-10 [N, 3, 32, 32] or [N, 3072] uint8. ImageNet-64
has 1,281,167 rows of 12,288 bytes, 15.7 GB. Each size is measured in a process of its own, from a page cache that holds
the file as far as memory allows.
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
from geodiff.base.files import atomic_path
from geodiff.measure import machine

ROWS, SIDE = 1_281_167, 64
PIECE = 2048
CHECKED = 4  # queries of each level against float64


def make(path: Path, rows: int) -> None:
    """Row i: a crop of 24 to 32 pixels of picture i mod N, mirrored or not, to 64 x 64, with noise of +-6."""
    pictures = torch.from_numpy(np.load(os.environ["GEODIFF_CIFAR10"], mmap_mode="r")[:].reshape(-1, 3, 32, 32))
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


def evaluation(path: Path, batch: int, sigma: float) -> dict[str, Any]:
    """One evaluation, and one sequential reading of the same file in the same state of the page cache."""
    with Memory() as memory:
        before = time.perf_counter()
        data = geodiff.data.load(path).data
        denoiser = geodiff.OptimalDenoiser(data)
        opened = time.perf_counter() - before
        chosen = torch.randint(0, len(data), (batch,), generator=torch.Generator().manual_seed(1))
        noise = torch.randn(batch, *data.shape[1:], generator=torch.Generator().manual_seed(2))
        x = reference.model_space(data[chosen].flatten(1), torch.float32).reshape(noise.shape) + sigma * noise
        read = bytes_read()
        began = time.perf_counter()
        answer = denoiser(x, sigma)
        seconds = time.perf_counter() - began
        read = bytes_read() - read
    most = memory.most
    plain = sequential(path)
    worst = None
    if batch > 1:
        exact = blockwise(data, x[:CHECKED], sigma)
        error = (answer[:CHECKED].double().flatten(1) - exact).norm(dim=1)
        worst = float((error / exact.norm(dim=1)).max())
    return {
        "rows": len(data),
        "bytes": data.numel(),
        "batch": batch,
        "sigma": sigma,
        "open_seconds": opened,
        "seconds": seconds,
        "read_bytes": read,
        "own_memory": most,
        "sequential_seconds": plain,
        "share_of_sequential": plain / seconds,
        "error": worst,
        "threads": torch.get_num_threads(),
    }


def blockwise(data: torch.Tensor, x: torch.Tensor, sigma: float) -> torch.Tensor:
    """r in float64 differences, block by block, merged by log-sum-exp: [B, d]."""
    flat, queries = data.flatten(1), x.flatten(1).double()
    top = torch.full((len(x), 1), -torch.inf, dtype=torch.float64)
    total, mean = torch.zeros_like(top), torch.zeros_like(queries)
    for rows in flat.split(PIECE):
        points = reference.model_space(rows, torch.float64)
        logits = torch.stack([-(points - query).square().sum(1) for query in queries]) / (2 * sigma**2)
        new = torch.maximum(top, logits.amax(1, keepdim=True))
        weights, scale = (logits - new).exp(), (top - new).exp()
        total, mean, top = total * scale + weights.sum(1, keepdim=True), mean * scale + weights @ points, new
    return mean / total


def measure(path: Path, out: Path) -> None:
    """All sizes, each in a process of its own."""
    found = []
    for batch in (1, 64):
        for sigma in (40.0, 1.0):
            arguments = [sys.executable, __file__, "one", str(path), str(batch), str(sigma)]
            said = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
            found.append(json.loads(said.splitlines()[-1]))
            print(json.dumps(found[-1]), flush=True)
            with atomic_path(out) as temporary:
                document = {"what": "bench/out_of_core.py", **machine.provenance(), "results": found}
                temporary.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    command, path, *rest = sys.argv[1:]
    if command == "make":
        make(Path(path), int(rest[0]) if rest else ROWS)
    elif command == "measure":
        measure(Path(path), Path(rest[0]))
    else:
        print(json.dumps(evaluation(Path(path), int(rest[0]), float(rest[1]))))
