"""GPU benchmark: every GPU backend against the two-product forms in PyTorch, with the machine's ceilings beside them.

A cell holds the time in a graph and by itself, with the data in the L2 cache and without, what the call puts on the
device (`geodiff.measure.device_profile`), the share of the ceiling, the ratio to each peer, and the error against
float64; a speed whose error is over the contract is not reported. KeOps and FAISS are timed at the size of CIFAR-10
where they are installed with CUDA. `bench/gpu.sh` runs this beside the tests; by itself: bench/gpu.py --out gpu.json
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geodiff import LocalDenoiser, OptimalDenoiser, backends, reference, sample, schedules
from geodiff.denoiser.graph_recording import recordable_engine, unchecked
from geodiff.measure import record
from geodiff.measure.baselines import PeerFailed, made, model_points
from geodiff.measure.device_profile import device_profile
from geodiff.reference.contract import largest_error, largest_norm

TOL = 1e-5


@dataclass(frozen=True)
class Size:
    """Cells of one data set, every batch at every sigma, and trajectories. Made-up bytes: no speed depends on them.

    passes: those of the CUDA core that are timed beside each other, at batches of up to FEW.
    """

    n: int
    d: int
    dtype: torch.dtype
    batches: tuple[int, ...]
    sigmas: tuple[float, ...] = (0.5, 20.0)
    trajectories: tuple[int, ...] = ()
    passes: tuple[str, ...] = ()


#: The size of CIFAR-10 and of ImageNet-64; then floats, other batches, ten times CIFAR-10.
DECISIVE = (
    Size(50_000, 3072, torch.uint8, (1, 4, 16, 64, 256), (20.0,), (64,), ("dense", "fused", "stream")),
    Size(1_281_167, 12_288, torch.uint8, (1, 64), (20.0,), passes=("dense", "fused")),
)
MORE = (
    Size(50_000, 3072, torch.uint8, (), (), (1, 128)),
    Size(50_000, 3072, torch.uint8, (1, 4, 16, 64, 256), (0.5,), passes=("dense", "fused", "stream")),
    Size(50_000, 3072, torch.bfloat16, (1, 64)),
    Size(50_000, 3072, torch.float32, (1, 64)),
    Size(500_000, 3072, torch.uint8, (1, 4, 16)),
    Size(1_281_167, 12_288, torch.uint8, (), (), (1,)),
)
BACKENDS = ("cuda", "triton", "auto")
PASSING = "cuda"  # the backend that GEODIFF_CUDA_PASS is for
FEW = 16
DEVICE = "cuda"
SECONDS = 0.1  # spent on one timing, at most, beyond the warm-up
LONG = 0.3  # a call of so many seconds is not repeated
REPLAYS = 20  # calls between two events, so that a launch is not what is measured
FLUSHED = 2**28  # bytes written between calls that are to find nothing in the cache
OTHERS = ("keops", "faiss-200")
OTHERS_SECONDS = 15.0  # spent on each of OTHERS, its compilation included, before it is left out


def main() -> None:
    """Measures, prints one line per cell, writes the JSON after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the JSON goes; what it holds is kept")
    parser.add_argument("--decisive", action="store_true", help="the cells that decide, and no others")
    parser.add_argument("--more", action="store_true", help="the others alone")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no cell after so many")
    parser.add_argument("--small", action="store_true", help="instead: every kernel over small shapes, for sanitizers")
    parser.add_argument("--once", action="store_true", help="instead: one call of each backend, for a profiler")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("bench/gpu.py: no CUDA device")
    names = [name for name in BACKENDS if name == "auto" or backends.is_available(name)]
    if options.small or options.once:
        for name in names:
            small(name) if options.small else once_each(name)
        if options.small and PASSING in names:
            small_fused()
        return
    run = Run(names, options.out, time.perf_counter() + options.seconds)
    for size in (() if options.more else DECISIVE) + (() if options.decisive else MORE):
        run.measure(size)
    if any(not found["error"] <= TOL for found in run.document["cells"]):
        sys.exit("bench/gpu.py: a result breaks the contract")
    if run.document["left_out"] and not run.document["cells"]:
        sys.exit("bench/gpu.py: nothing was measured")


class Run:
    """What has been measured so far, on disk as it comes."""

    def __init__(self, names: list[str], out: Path | None, deadline: float) -> None:
        self.names, self.out, self.deadline = names, out, deadline
        if out is not None and out.exists():
            self.document: dict[str, Any] = json.loads(out.read_text())
        else:
            properties = torch.cuda.get_device_properties(0)
            self.document = record.document(
                "bench/gpu.py",
                gpu=properties.name,
                multiprocessors=properties.multi_processor_count,
                backends=backends.available(),
                ceilings=ceilings(),
                cells=[],
                trajectories=[],
                left_out=[],
            )
        print(json.dumps(self.document["ceilings"]))

    def measure(self, size: Size) -> None:
        what = f"N={size.n} d={size.d} {size.dtype}"
        if size.n * size.d * size.dtype.itemsize > 0.7 * torch.cuda.mem_get_info()[0]:
            self._leave_out(f"{what}: does not fit into this GPU's memory")
            return
        if self._late(what):
            return
        data = made_up(size.n, size.d, size.dtype)
        first = size is DECISIVE[0]
        denoisers = [OptimalDenoiser(data, backend=name) for name in self.names]
        others = [Other(name, data) for name in OTHERS if first]
        passing = {name: by_pass(data, name) for name in size.passes if PASSING in self.names}
        for batch in size.batches:
            for sigma in size.sigmas:
                if self._late(f"{what} B={batch} sigma={sigma}"):
                    continue
                truth = Truth(data, queries(data, batch, sigma), sigma)
                beside = two_product_forms(truth) | {other.name: other.entry(truth) for other in others}
                for denoiser, name in zip(denoisers, self.names, strict=True):
                    self._keep("cells", {"asked": name, **cell(denoiser, truth, self.document["ceilings"], beside)})
                for name, denoiser in passing.items() if batch <= FEW else ():
                    found = cell(denoiser, truth, self.document["ceilings"], {})
                    self._keep("cells", {"asked": PASSING, "pass": name, **found})
        for batch in size.trajectories:
            for denoiser, name in zip(denoisers, self.names, strict=True):
                if not self._late(f"{what} trajectory B={batch} {name}"):
                    self._keep("trajectories", {"asked": name, **trajectory(denoiser, batch)})
        del data, denoisers, others, passing
        torch.cuda.empty_cache()

    def _late(self, what: str) -> bool:
        late = time.perf_counter() > self.deadline
        if late:
            self._leave_out(f"{what}: no time left")
        return late

    def _leave_out(self, what: str) -> None:
        self._keep("left_out", what)

    def _keep(self, where: str, found: Any) -> None:
        self.document[where].append(found)
        print(json.dumps(found))
        if self.out is not None:
            record.write(self.out, self.document)


@dataclass(frozen=True)
class Truth:
    """Queries x [B, d] over data [N, d] at one sigma, and what the first two are answered in float64."""

    data: Tensor
    x: Tensor
    sigma: float

    @cached_property
    def expected(self) -> Tensor:
        return reference.posterior(self.x[:2].double(), self.data, self.sigma).mean

    @cached_property
    def largest_norm(self) -> float:
        return largest_norm(self.data)

    def error(self, answer: Tensor) -> float:
        """Contract 1 on the first two queries; all rows of the reference are float64 differences."""
        return largest_error(answer[:2], self.expected, self.largest_norm)


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
    denoiser: OptimalDenoiser, truth: Truth, ceiling: dict[str, float], beside: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """One backend, dtype, size, batch and noise level; times are of the whole evaluation, without argument checks.

    beside: entry by peer, to which the ratio is added; as in the whole file, above 1 where we are faster.
    """
    data, x = truth.data, truth.x
    (n, d), batch = data.shape, len(x)
    levels, out = torch.full((batch,), truth.sigma, dtype=torch.float64, device=DEVICE), torch.empty_like(x)
    plain: Callable[[], Tensor] = lambda: unchecked(denoiser, x, levels, 1.0, (), out)  # noqa: E731
    found: dict[str, Any] = {
        "backend": denoiser._points.engines.name(batch),
        "dtype": str(data.dtype).removeprefix("torch."),
        "N": n,
        "d": d,
        "B": batch,
        "sigma": truth.sigma,
        "error": truth.error(plain()),
    }
    if not found["error"] <= TOL:
        return {**found, "refused": "the error is over the contract"}
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found["eager_ms"] = seconds(plain) * 1e3
    found["extra_GB"] = (torch.cuda.max_memory_allocated() - before) / 1e9
    found["one_call"] = device_profile(plain)
    run = recorded(plain) if recordable_engine(denoiser, batch) is not None else plain
    own = seconds(run)
    found["ms"] = own * 1e3
    found["cold_ms"] = cold(run) * 1e3
    found["share_of_copy_bandwidth"] = data.numel() * data.itemsize / own / (ceiling["copy_GBps"] * 1e9)
    found["effective_TFLOPs"] = 4 * batch * n * d / own / 1e12
    found["peers"] = {
        name: {**peer, "ratio": peer["ms"] / found["ms"]} if "ms" in peer else peer for name, peer in beside.items()
    }
    return found


@contextmanager
def asking_for(name: str) -> Iterator[None]:
    """Engines that open meanwhile take that pass where it serves."""
    os.environ["GEODIFF_CUDA_PASS"] = name
    try:
        yield
    finally:
        del os.environ["GEODIFF_CUDA_PASS"]


def by_pass(data: Tensor, name: str) -> OptimalDenoiser:
    """A denoiser over `data` whose engine is open and keeps to that pass."""
    with asking_for(name):
        denoiser = OptimalDenoiser(data, backend=PASSING)
        denoiser._points.engines.serving()
    return denoiser


def two_product_forms(truth: Truth) -> dict[str, dict[str, Any]]:
    """The two-product form on floating copies, which are made beforehand and fit into memory."""
    out: dict[str, dict[str, Any]] = {}
    forms = (("float32", torch.float32, False), ("tf32", torch.float32, True), ("bf16", torch.bfloat16, False))
    for name, dtype, tf32 in forms:
        if truth.data.numel() * dtype.itemsize > 0.45 * torch.cuda.mem_get_info()[0]:
            out[name] = {"note": "its copy of the data does not fit"}
            continue
        torch.backends.cuda.matmul.allow_tf32 = tf32
        taken, answer = two_products(truth.data, truth.x.to(dtype), truth.sigma)
        torch.backends.cuda.matmul.allow_tf32 = False
        out[name] = {"ms": taken * 1e3, "error": truth.error(answer)}
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

    def entry(self, truth: Truth) -> dict[str, Any]:
        """Time and error, or a note that says why there are none."""
        if self._spent > OTHERS_SECONDS:
            self._note = f"left out: {self._spent:.0f} s were spent on it"
        if self._note:
            return {"note": self._note}
        start = time.perf_counter()
        try:
            answer = self._denoise(truth.x, truth.sigma)
            taken = seconds(partial(self._denoise, truth.x, truth.sigma))
        except PeerFailed as failure:
            return {"note": str(failure)}
        finally:
            self._spent += time.perf_counter() - start
        return {"ms": taken * 1e3, "error": truth.error(answer)}


def trajectory(denoiser: OptimalDenoiser, batch: int) -> dict[str, Any]:
    """18 levels of Heun, 35 evaluations: the whole call, as a user makes it, the first time and later."""
    data = denoiser.data
    noise = 80 * torch.randn(batch, *data.shape[1:], device=DEVICE)
    sigmas = schedules.karras(18)
    start = time.perf_counter()
    sample(denoiser, noise, sigmas)
    first = time.perf_counter() - start  # ends with a look at the values, so the device is done
    found = {"backend": denoiser._points.engines.name(batch), "N": len(data), "d": data[0].numel(), "B": batch}
    later = seconds(lambda: sample(denoiser, noise, sigmas), replays=1)
    return {**found, "evaluations": 35, "first_ms": 1e3 * first, "ms": 1e3 * later}


def small(name: str) -> None:
    """Every path of one backend over shapes that divide nothing, and over rows that clusters of blocks share."""
    shapes = [(1, 1, 1), (67, 97, 3), (130, 800, 17), (70, 3072, 5), (40, 12_288, 3)]
    for dtype in (torch.uint8, torch.float16, torch.bfloat16, torch.float32):
        for n, d, batch in shapes if dtype == torch.uint8 else shapes[:3]:
            data = made_up(n, d, dtype)
            denoiser = OptimalDenoiser(data, backend=name)
            for sigma in (1e-5, 1.0):
                truth = Truth(data, queries(data, batch, sigma), sigma)
                answer = denoiser.posterior(truth.x.double(), sigma, topk=1)
                if not truth.error(answer.mean) <= TOL:
                    sys.exit(f"{name}: N={n} d={d} B={batch} {dtype} sigma={sigma}: the error is over the contract")
                answer.covariance(truth.x.double())
                answer.sample(2)
            # LS over lines, which take several tiles, and over many channels, which are summed in groups.
            for shape in ((1, 1, d), (d, 1, 1)) if name == "triton" and d < 100 else ():
                local, x = LocalDenoiser(data.reshape(n, *shape), backend=name), truth.x.reshape(-1, *shape)
                if not bool(local(x, 1.0).isfinite().all() & local.posteriors(x, 1.0).mean.isfinite().all()):
                    sys.exit(f"{name}: LS over {list(shape)} {dtype}: not finite")
    for rule in ("torus", "valid", "broken") if name == "triton" else ():
        data = made_up(5, 378, torch.uint8).reshape(5, 6, 7, 9)
        local = LocalDenoiser(data, kind=f"els_{rule}", patch=5, backend=name)
        if not bool(local(data[:2] / 127.5 - 1, 1.0).isfinite().all()):
            sys.exit(f"{name}: ELS {rule}: not finite")
    # PSPC-Square over several tiles: crops that begin and end in one, that begin in one, and in pieces.
    for patch in (3, 10, 20) if name == "triton" else ():
        data = made_up(20, 1000, torch.uint8).reshape(20, 1, 25, 40)
        local, x = LocalDenoiser(data, kind="pspc_square", patch=patch, backend=name), data[:2] / 127.5 - 1
        if not bool(local(x, 1.0).isfinite().all() & local.posteriors(x, 1.0).mean.isfinite().all()):
            sys.exit(f"{name}: PSPC-Square of {patch}: not finite")


def small_fused() -> None:
    """The fused pass in one block and in clusters of 2, 4 and 8, for its three numbers of queries."""
    for n, d, batch in ((70, 784, 1), (200, 3072, 3), (140, 3072, 8), (140, 784, 16), (70, 12_288, 1)):
        data = made_up(n, d, torch.uint8)
        truth = Truth(data, queries(data, batch, 1.0), 1.0)
        if not truth.error(by_pass(data, "fused")(truth.x, 1.0)) <= TOL:
            sys.exit(f"fused: N={n} d={d} B={batch}: the error is over the contract")


def once_each(name: str) -> None:
    """One call for few queries and one for many, at the size of CIFAR-10."""
    data = made_up(50_000, 3072, torch.uint8)
    denoiser = OptimalDenoiser(data, backend=name)
    for batch in (1, 64):
        denoiser(queries(data, batch, 20.0), 20.0)


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


def recorded(run: Callable[[], object]) -> Callable[[], object]:
    """`run` as a CUDA graph: the time of the device, not of the host's launches."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def seconds(run: Callable[[], object], replays: int | None = None) -> float:
    """Median time of one call in a row of `replays`; of a long one the time of the second call."""
    run()
    second = once(run)
    if second > LONG:
        return second
    row = max(1, min(REPLAYS, int(SECONDS / second))) if replays is None else replays
    times: list[float] = []
    while len(times) < 3 or (sum(times) < SECONDS and len(times) < 50):
        times.append(once(run, row))
    return statistics.median(times) / row


def cold(run: Callable[[], object]) -> float:
    """Median time of a single call that finds none of the data in the L2 cache."""
    other = torch.empty(FLUSHED, dtype=torch.uint8, device=DEVICE)
    times = []
    for _ in range(5):
        other.fill_(len(times))
        times.append(once(run))
    return statistics.median(times)


def once(run: Callable[[], object], times: int = 1) -> float:
    """Time of so many calls on the device."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(times):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


if __name__ == "__main__":
    main()
