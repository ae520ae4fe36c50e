"""GPU benchmark: every GPU backend against the two-product forms in PyTorch, with the machine's ceilings beside them.

A cell holds time, share of the ceiling, ratio to each peer, and the error against float64; a speed whose error is over
the contract is not reported. KeOps and FAISS are timed at the size of CIFAR-10 where they are installed with CUDA.
`bench/gpu.sh` runs this after the tests; by itself: python bench/gpu.py --out gpu.json
"""

import argparse
import datetime
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geodiff import OptimalDenoiser, backends, reference, sample, schedules
from geodiff.denoiser.recording import recordable_engine, unchecked
from geodiff.measure.baselines import PeerFailed, made, model_points

TOL = 1e-5
#: (N, d, batches, dtypes): CIFAR-10 size, ten times it, ImageNet-64 size. Made-up bytes: speed does not depend on them.
SIZES: tuple[tuple[int, int, tuple[int, ...], tuple[torch.dtype, ...]], ...] = (
    (50_000, 3072, (1, 4, 16, 64, 256), (torch.uint8, torch.bfloat16, torch.float32)),
    (500_000, 3072, (1, 4, 16), (torch.uint8,)),
    (1_281_167, 12_288, (1, 64), (torch.uint8,)),
)
SIGMAS = (0.5, 20.0)
BACKENDS = ("cuda", "triton")
DEVICE = "cuda"
SECONDS = 0.2  # spent on one timing, at most, beyond the warm-up
LONG = 0.5  # a call of so many seconds is not repeated
OTHERS = ("keops", "faiss-200")
OTHERS_SECONDS = 30.0  # spent on each of OTHERS, its compilation included, before it is left out


def main() -> None:
    """Measures, prints one line per cell, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--small", action="store_true", help="every kernel once over small shapes, for sanitizers")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("bench/gpu.py: no CUDA device")
    names = [name for name in BACKENDS if backends.is_available(name)]
    if options.small:
        for name in names:
            small(name)
        return
    properties = torch.cuda.get_device_properties(0)
    document: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "gpu": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "torch": torch.__version__,
        "backends": backends.available(),
        "ceilings": ceilings(),
        "cells": [],
        "trajectories": [],
    }
    print(json.dumps(document["ceilings"]))
    for n, d, batches, dtypes in SIZES:
        for dtype in dtypes:
            if n * d * dtype.itemsize > 0.7 * torch.cuda.mem_get_info()[0]:
                print(f"N={n} d={d} {dtype}: does not fit into this GPU's memory, left out")
                continue
            data = made_up(n, d, dtype)
            first = (n, dtype) == (SIZES[0][0], SIZES[0][3][0])
            denoisers = [OptimalDenoiser(data, backend=name) for name in names]
            others = [Other(name, data) for name in OTHERS if first]
            for batch in batches:
                for sigma in SIGMAS:
                    x = queries(data, batch, sigma)
                    beside = two_product_forms(data, x, sigma) | {o.name: o.entry(data, x, sigma) for o in others}
                    for denoiser in denoisers:
                        found = cell(denoiser, data, x, sigma, document["ceilings"], beside)
                        document["cells"].append(found)
                        print(json.dumps(found))
            del denoisers, others
            if first:
                document["trajectories"] += [trajectory(data, name) for name in names]
                print(json.dumps(document["trajectories"]))
            del data
            torch.cuda.empty_cache()
            if options.out:
                options.out.write_text(json.dumps(document, indent=1))
    if any(found["error"] > TOL for found in document["cells"]):
        sys.exit("bench/gpu.py: a result breaks the contract")


def ceilings() -> dict[str, float]:
    """Copy bandwidth in GB/s, bytes read and written counted, and matrix rates in T multiply-adds/s."""
    numbers = torch.empty(2**30, dtype=torch.uint8, device=DEVICE)
    copy = torch.empty_like(numbers)
    left = torch.randn(8192, 8192, device=DEVICE).bfloat16()
    bytes_ = torch.randint(-128, 128, (8192, 8192), dtype=torch.int8, device=DEVICE)
    return {
        "copy_GBps": 2 * numbers.numel() / seconds(lambda: copy.copy_(numbers)) / 1e9,
        "bf16_Tmacps": 8192**3 / seconds(lambda: left @ left) / 1e12,
        "int8_Tmacps": 8192**3 / seconds(lambda: torch._int_mm(bytes_, bytes_.T)) / 1e12,
    }


def cell(
    denoiser: OptimalDenoiser,
    data: Tensor,
    x: Tensor,
    sigma: float,
    ceiling: dict[str, float],
    beside: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """One backend, dtype, size, batch and noise level; times are of the whole evaluation, without argument checks.

    beside: entry by peer, to which the ratio is added; as in the whole file, above 1 where we are faster.
    """
    (n, d), batch = data.shape, len(x)
    levels, out = torch.full((batch,), sigma, dtype=torch.float64, device=DEVICE), torch.empty_like(x)
    found: dict[str, Any] = {
        "backend": denoiser.backend,
        "dtype": str(data.dtype).removeprefix("torch."),
        "N": n,
        "d": d,
        "B": batch,
        "sigma": sigma,
        "error": error(unchecked(denoiser, x, levels, 1.0, (), out), x, data, sigma),
    }
    if not found["error"] <= TOL:
        return {**found, "refused": "the error is over the contract"}
    run: Callable[[], object] = lambda: unchecked(denoiser, x, levels, 1.0, (), out)  # noqa: E731
    if recordable_engine(denoiser, batch) is not None:
        run = recorded(run)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    own = seconds(run)
    found["ms"] = own * 1e3
    found["extra_GB"] = (torch.cuda.max_memory_allocated() - before) / 1e9
    found["share_of_copy_bandwidth"] = data.numel() * data.itemsize / own / (ceiling["copy_GBps"] * 1e9)
    found["effective_TFLOPs"] = 4 * batch * n * d / own / 1e12
    found["peers"] = {
        name: {**peer, "ratio": peer["ms"] / found["ms"]} if "ms" in peer else peer for name, peer in beside.items()
    }
    return found


def two_product_forms(data: Tensor, x: Tensor, sigma: float) -> dict[str, dict[str, Any]]:
    """The two-product form on floating copies, which are made beforehand and fit into memory."""
    out: dict[str, dict[str, Any]] = {}
    forms = (("float32", torch.float32, False), ("tf32", torch.float32, True), ("bf16", torch.bfloat16, False))
    for name, dtype, tf32 in forms:
        if data.numel() * dtype.itemsize > 0.5 * torch.cuda.mem_get_info()[0]:
            continue
        torch.backends.cuda.matmul.allow_tf32 = tf32
        taken, answer = two_products(data, x.to(dtype), sigma)
        torch.backends.cuda.matmul.allow_tf32 = False
        out[name] = {"ms": taken * 1e3, "error": error(answer, x, data, sigma)}
    return out


def two_products(data: Tensor, x: Tensor, sigma: float) -> tuple[float, Tensor]:
    """softmax((x X^T - |x_i|^2 / 2) / sigma^2) X on a copy of the data in the dtype of x, as a graph: time, answer."""
    points = torch.empty(data.shape, dtype=x.dtype, device=x.device)
    half_norms = torch.empty(len(data), dtype=x.dtype, device=x.device)
    for to, norms, rows in zip(points.split(2**14), half_norms.split(2**14), data.split(2**14), strict=True):
        values = reference.model_space(rows, torch.float32)
        to.copy_(values)
        norms.copy_(values.square().sum(1) / 2)

    def run() -> Tensor:
        return ((x @ points.T - half_norms) / sigma**2).softmax(1) @ points

    answer = run()
    return seconds(recorded(run)), answer


class Other:
    """KeOps or FAISS over a float32 copy of the data on the GPU, for as long as its share of time lasts."""

    def __init__(self, name: str, data: Tensor) -> None:
        self.name, self._spent, self._note = name, 0.0, ""
        try:
            self._denoise = made(name, model_points(data))
        except ImportError as error:
            self._note = str(error)

    def entry(self, data: Tensor, x: Tensor, sigma: float) -> dict[str, Any]:
        """Time and error, or a note that says why there are none."""
        if self._spent > OTHERS_SECONDS:
            self._note = f"left out: {self._spent:.0f} s were spent on it"
        if self._note:
            return {"note": self._note}
        start = time.perf_counter()
        try:
            answer = self._denoise(x, sigma)
            taken = seconds(partial(self._denoise, x, sigma))
        except PeerFailed as failure:
            return {"note": str(failure)}
        finally:
            self._spent += time.perf_counter() - start
        return {"ms": taken * 1e3, "error": error(answer, x, data, sigma)}


def trajectory(data: Tensor, name: str) -> dict[str, Any]:
    """18 levels of Heun, 35 evaluations, B = 128: the whole call, as a user makes it, once it has been made twice."""
    denoiser = OptimalDenoiser(data, backend=name)
    noise = 80 * torch.randn(128, data.shape[1], device=DEVICE)
    sigmas = schedules.karras(18)
    return {"backend": name, "B": 128, "evaluations": 35, "ms": 1e3 * seconds(lambda: sample(denoiser, noise, sigmas))}


def small(name: str) -> None:
    """Every path of one backend over shapes that divide nothing."""
    for dtype in (torch.uint8, torch.float16, torch.bfloat16, torch.float32):
        for n, d, batch in ((1, 1, 1), (67, 97, 3), (130, 800, 17)):
            data = made_up(n, d, dtype)
            denoiser = OptimalDenoiser(data, backend=name)
            for sigma in (1e-5, 1.0):
                x = queries(data, batch, sigma)
                answer = denoiser.posterior(x.double(), sigma, topk=1)
                if not error(answer.mean, x, data, sigma) <= TOL:
                    sys.exit(f"{name}: N={n} d={d} B={batch} {dtype} sigma={sigma}: the error is over the contract")


def made_up(n: int, d: int, dtype: torch.dtype) -> Tensor:
    """Bytes with smooth structure, so that weights are neither all alike nor all one, in `dtype`."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    out = torch.empty(n, d, dtype=dtype, device=DEVICE)
    directions = torch.randn(16, d, device=DEVICE, generator=generator)
    for rows in out.split(2**14):
        values = torch.randn(len(rows), 16, device=DEVICE, generator=generator) @ directions / 8
        pixels = ((values + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        rows.copy_(pixels if dtype == torch.uint8 else reference.model_space(pixels, torch.float32))
    return out


def queries(data: Tensor, batch: int, sigma: float) -> Tensor:
    """Data points with noise of level sigma, float32 [B, d]."""
    generator = torch.Generator(DEVICE).manual_seed(1)
    points = reference.model_space(data[:: max(1, len(data) // batch)][:batch], torch.float32)
    points = points.repeat(math.ceil(batch / len(points)), 1)[:batch]
    return points + sigma * torch.randn(points.shape, device=DEVICE, generator=generator)


def error(answer: Tensor, x: Tensor, data: Tensor, sigma: float) -> float:
    """Contract 1 on the first two queries; all rows of the reference are float64 differences."""
    expected = reference.posterior(x[:2].double(), data, sigma).mean
    largest = max(float(reference.model_space(rows, torch.float32).norm(dim=1).max()) for rows in data.split(2**14))
    scale = expected.norm(dim=1).clamp_min(0.01 * largest)
    return float(((answer[:2].double() - expected).norm(dim=1) / scale).max())


def recorded(run: Callable[[], object]) -> Callable[[], object]:
    """`run` as a CUDA graph: the time of the device, not of the host's launches."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def seconds(run: Callable[[], object]) -> float:
    """Median time of one call, after three to warm up; of a long one the time of the second call."""
    run()
    second = once(run)
    if second > LONG:
        return second
    run()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < SECONDS and len(times) < 50):
        times.append(once(run))
    return statistics.median(times)


def once(run: Callable[[], object]) -> float:
    """Time of one call on the device."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


if __name__ == "__main__":
    main()
