"""Contract 1, measured: every backend against the float64 reference over a grid of noise level, batch, size and dtype.

error = max over queries of |r - r64| / max(|r64|, 0.01 max_i |x_i|), which has to stay within `tol`, and
|log p - log p64| / (1e-3 + 1e-6 |log p64|), which has to stay within 1. r64 is `geodiff.reference` in float64 on the
data as stored. The data is made harder first: exact duplicates and near-duplicates (one pixel one level apart) join it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from geodiff import backends as backend_registry
from geodiff import reference
from geodiff.backends import cpu
from geodiff.base.dtypes import STORED
from geodiff.base.posterior import Posterior
from geodiff.data import Dataset, load
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.distributed import job
from geodiff.measure.machine import one_thread
from geodiff.reference.contract import largest_error, largest_norm, log_prob_errors

SIGMAS = (1e-3, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 40.0, 80.0, 1000.0)
BATCHES = (1, 7, 64)
LEVEL = 1 / 127.5  # one step of an 8-bit pixel in model space
MAX_ELEMENTS = 1_000_000  # N·d beyond which a random subset is checked: a minute; the time grows in proportion
CALLS = 4  # batches tried per row, so that B = 1 meets every kind of query too
ONE_THREAD = 2**20  # N·d below which the reference runs on one thread
TWINS = 4  # points that get an exact duplicate, and as many that get a near-duplicate


@dataclass(frozen=True)
class CheckRow:
    """One cell of the grid: one backend (and ISA) on one storage dtype, noise level, batch and size.

    error: largest relative error of the mean over the queries (contract 1; infinite where the result is not finite).
    log_prob_error: largest |Δ log p| in units of what is allowed, 1e-3 + 1e-6 |log p|; so at most 1 passes.
    ok: both within their bounds.
    """

    backend: str
    isa: str
    dtype: str
    sigma: float
    B: int
    N: int
    d: int
    error: float
    log_prob_error: float
    ok: bool


@dataclass(frozen=True, eq=False)
class _Case:
    """The queries of one (size, dtype, sigma) and what the reference says about them."""

    data: Tensor  # [N, d] as stored
    sigma: float
    queries: Tensor  # [Q, d] float32
    expected: Posterior  # float64
    largest: float  # max_i |x_i|


def subset(data: Dataset, limit: int | None = None, *, seed: int = 0) -> Dataset:
    """A random subset of at most `limit` points (default: what keeps N·d within MAX_ELEMENTS), named as such.

    Returns `data` itself where it is small enough. Raises ValueError for limit < 1.
    """
    if limit is None:
        limit = max(1, MAX_ELEMENTS // max(1, data.data[0].numel()))
    if limit < 1:
        raise ValueError(f"limit: found {limit}, allowed 1 or more")
    if len(data) <= limit:
        return data
    chosen = torch.randperm(len(data), generator=_generator(seed))[:limit].sort().values
    labels = None if data.labels is None else data.labels[chosen]
    name = f"{data.name} (a random {limit:,} of {len(data):,} points)"
    return replace(data, data=data.data[chosen], labels=labels, name=name)


def run(
    data: Dataset | None = None,
    *,
    backends: Sequence[str] | None = None,
    sigmas: Sequence[float] = SIGMAS,
    batches: Sequence[int] = BATCHES,
    dtypes: Sequence[torch.dtype] = STORED,
    tol: float = 1e-5,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[CheckRow]:
    """Compares `backends` (default: all that are available here; the CPU one once per ISA) with the reference.

    data: default the built-in `digits`; large data is cut by `subset`. Leading blocks of it with few points or few
    coordinates, which divide no tile, are checked too. `left_out` names the dtypes whose range the data leave.
    progress: called as progress(cells done, cells in all).
    Raises ValueError for an unknown backend and BackendUnavailable for one that this machine or build does not have.
    """
    points = subset(load("digits") if data is None else data, seed=seed).data.flatten(1)  # [N, d]
    names = [name for name in backend_registry.available() if backend_registry.is_available(name)]
    variants = [variant for name in (names if backends is None else backends) for variant in _variants(name)]
    stored = [dtype for dtype in dtypes if _holds(dtype, points)]
    blocks = _blocks(points.shape[0], points.shape[1])
    total = len(blocks) * len(stored) * len(sigmas) * len(variants)

    rows: list[CheckRow] = []
    done = 0
    for count, dims in blocks:
        block = _with_twins(points[:count, :dims], _generator(seed))
        for dtype in stored:
            data_as_stored = _stored_as(block, dtype)
            # A block with fewer points than there are processes is each one's own.
            make = job.denoiser_over if len(data_as_stored) >= job.ranks().size else OptimalDenoiser
            denoisers = [make(data_as_stored, backend=name, device=_device(name), tol=tol) for name, _ in variants]
            for case in _cases(data_as_stored, sigmas, max(batches), _generator(seed)):
                for (name, isa), denoiser in zip(variants, denoisers, strict=True):
                    with cpu.use_isa(isa) if name == "cpu" else _few_threads(data_as_stored):
                        rows += [_row(name, isa, denoiser, case, batch, tol) for batch in batches]
                    done += 1
                    if progress is not None:
                        progress(done, total)
    return rows


def _row(name: str, isa: str, denoiser: OptimalDenoiser, case: _Case, batch: int, tol: float) -> CheckRow:
    """One row: up to CALLS batches out of the queries, and the first once more in float64 through the call itself."""
    error = log_prob_error = 0.0
    for start in range(0, min(batch * CALLS, case.queries.shape[0] - batch + 1), batch):
        part = slice(start, start + batch)
        x = case.queries[part].to(denoiser.data.device)
        posterior = denoiser.posterior(x, case.sigma)
        means = [posterior.mean] if start else [posterior.mean, denoiser(x.double(), case.sigma)]
        error = max(error, *(largest_error(mean, case.expected.mean[part], case.largest) for mean in means))
        off = log_prob_errors(posterior.log_prob, case.expected.log_prob[part])
        log_prob_error = max(log_prob_error, float(off.max()))
    count, dims = case.data.shape
    return CheckRow(
        backend=name,
        isa=isa,
        dtype=str(case.data.dtype).removeprefix("torch."),
        sigma=case.sigma,
        B=batch,
        N=count,
        d=dims,
        error=error,
        log_prob_error=log_prob_error,
        ok=error <= tol and log_prob_error <= 1,
    )


def _cases(data: Tensor, sigmas: Sequence[float], count: int, generator: torch.Generator) -> Iterator[_Case]:
    """For each sigma, `count` queries of the kinds that go wrong first, and the reference's answers to them."""
    points = reference.model_space(data, torch.float64)  # [N, d] float64
    largest = largest_norm(data)
    twin, near = data.shape[0] - 1, data.shape[0] - 1 - TWINS  # the last twin of each kind; see _with_twins
    for sigma in sigmas:
        index = torch.randint(data.shape[0], (count,), generator=generator)
        # Every other query starts from a point that has a twin: there the weights are decided by the last bits.
        index[::2] = data.shape[0] - 1 - torch.randint(2 * TWINS, (index[::2].numel(),), generator=generator)
        noise = torch.randn(count, data.shape[1], generator=generator, dtype=torch.float64)
        queries = points[index] + sigma * noise
        if count >= 4:
            queries[1] = points[index[1]]  # exactly a data point
            queries[2] = points[twin]  # exactly a point that is there twice
            queries[3] = (points[near] + points[_original(near, data)]) / 2  # halfway between near-duplicates
        queries = queries.float()
        with _few_threads(data):
            expected = reference.posterior(queries.double(), data, sigma)
        yield _Case(data, sigma, queries, expected, largest)


def _original(near: int, data: Tensor) -> int:
    """The index of the point nearest to data[near] but for exact duplicates of it: the one it was made from."""
    points = reference.model_space(data, torch.float64)
    distance = (points - points[near]).norm(dim=1)
    return int(distance.masked_fill(distance == 0, torch.inf).argmin())


def _with_twins(points: Tensor, generator: torch.Generator) -> Tensor:
    """points [N, d] -> [N + 2 TWINS, d]: near-duplicates (one coordinate one level apart), then exact duplicates."""
    near = points[torch.randint(points.shape[0], (TWINS,), generator=generator)].clone()
    column = torch.randint(points.shape[1], (TWINS,), generator=generator)
    level = 1 if points.dtype == torch.uint8 else LEVEL
    value = near[torch.arange(TWINS), column]
    middle = 127 if points.dtype == torch.uint8 else 0  # step towards the middle: never out of range
    near[torch.arange(TWINS), column] = torch.where(value > middle, value - level, value + level).to(points.dtype)
    exact = points[torch.randint(points.shape[0], (TWINS,), generator=generator)]
    return torch.cat([points, near, exact])


def _stored_as(points: Tensor, dtype: torch.dtype) -> Tensor:
    """The same data in another storage dtype; pixels u and model-space values v = u/127.5 - 1 become each other."""
    if points.dtype == dtype:
        return points.contiguous()
    if dtype == torch.uint8:
        return ((points.double() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return reference.model_space(points, torch.float64).to(dtype)


def left_out(data: Dataset, dtypes: Sequence[torch.dtype] = STORED) -> list[str]:
    """The dtypes that `run` leaves out, by name, since the data lie outside their range."""
    points = data.data.flatten(1)
    return [str(dtype).removeprefix("torch.") for dtype in dtypes if not _holds(dtype, points)]


def _holds(dtype: torch.dtype, points: Tensor) -> bool:
    """Whether the points are within the range of a storage dtype; points that are not finite are left for others."""
    if dtype == points.dtype:
        return True
    if dtype == torch.uint8:
        return bool(points.double().abs().max() <= 1)
    near = reference.model_space(points, torch.float64)
    return bool((near.to(dtype).isfinite() | ~near.isfinite()).all())


def _blocks(count: int, dims: int) -> list[tuple[int, int]]:
    """(N, d) of the blocks to check: all of the data, and sizes that divide no tile; without repetition."""
    wanted = ((count, dims), (1, dims), (17, 33), (257, 1))
    return list(dict.fromkeys((min(n, count), min(d, dims)) for n, d in wanted))


def _variants(backend: str) -> list[tuple[str, str]]:
    """(backend, ISA) pairs of one backend: each level that the machine has for "cpu", one without a name elsewhere."""
    return [(backend, isa) for isa in cpu.isas()] if backend == "cpu" else [(backend, "")]


def _device(backend: str) -> str:
    return "cuda" if backend in ("triton", "cuda") else "cpu"


def _few_threads(data: Tensor) -> AbstractContextManager[None]:
    return one_thread() if data.numel() < ONE_THREAD else nullcontext()


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
