"""The compiled CPU core (csrc/cpu), behind the `Engine` interface."""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geodiff.backends.combination import Combination
from geodiff.backends.cost import UNTOLD, Cost
from geodiff.backends.engine import Engine
from geodiff.backends.mapped_file import MappedFile
from geodiff.backends.principal_coordinates import FORMAT, SUFFIX, WithKeptCoordinates
from geodiff.backends.query import Direction, Query
from geodiff.backends.row_statistics import statistics_of
from geodiff.backends.sidecar_file import SidecarFile
from geodiff.base.arguments import check_finite, check_levels
from geodiff.base.dtypes import number_of
from geodiff.base.errors import BackendUnavailable, DataError
from geodiff.base.posterior import Bounds, Posterior

try:
    from geodiff import _cpu
except ImportError as error:  # a source tree that was never built
    _cpu = None  # type: ignore[assignment]
    MISSING = f"the compiled extension geodiff._cpu does not load: {error}"
else:
    MISSING = ""

#: The path that answered a query, by its number in csrc/common/stored.h: see csrc/cpu/README.md.
PATHS = ("screened", "dense", "dense_fine", "exact", "remembered")

_chosen: ContextVar[str] = ContextVar("geodiff_isa", default="")


def isas() -> list[str]:
    """The instruction sets that this build has and this machine runs, slowest first."""
    return _cpu.isas() if _cpu is not None else []


def isa() -> str:
    """The instruction set in use: `use_isa`, else the environment variable GEODIFF_ISA, else the best there is.

    Raises ValueError if GEODIFF_ISA names one that this machine does not have.
    """
    return _checked(_chosen.get() or os.environ.get("GEODIFF_ISA", ""))


def peaks(name: str, threads: int) -> tuple[float, float, float]:
    """Multiply-adds per second in registers, of float32 and of exact integers (0: none), and bytes read per second.

    All `threads` together, on the instruction set of that name. Raises BackendUnavailable, or ValueError for a name
    that is none of `isas()`.
    """
    if _cpu is None:
        raise BackendUnavailable(MISSING)
    return _cpu.peaks(_checked(name), threads)


def add_given(logits: Tensor, values: Tensor, cut: float, sums: tuple[Tensor, Tensor, Tensor]) -> int:
    """Adds candidates to posteriors, a row of logits each; those `cut` below its largest logit may be left out.

    logits [rows, count], values [C, count]; sums: largest logit and mass [rows], total [rows, C], both relative to it.
    All float64 and contiguous. How many pairs of a row and a candidate were not left out.
    """
    rows, count = logits.shape
    logits, values = logits.contiguous(), values.contiguous()
    return _cpu.add_given(
        isa=isa(),
        threads=torch.get_num_threads(),
        logits=logits.data_ptr(),
        values=values.data_ptr(),
        shape=(rows, count),
        channels=len(values),
        cut=cut,
        sums=tuple(each.data_ptr() for each in sums),
    )


@contextlib.contextmanager
def use_isa(name: str) -> Iterator[None]:
    """Within the block, calls run on that instruction set (one of `isas()`); else ValueError."""
    token = _chosen.set(_checked(name))
    try:
        yield
    finally:
        _chosen.reset(token)


def _checked(name: str) -> str:
    found = isas()
    if not found:
        raise BackendUnavailable(MISSING)
    if name and name not in found:
        raise ValueError(f"GEODIFF_ISA: expected an instruction set of this machine, found {name!r}; allowed {found}")
    return name or found[-1]


class Window(NamedTuple):
    """size x size pixels around each; wraps: going on at the other end. mirrored: mirror images are rows, too.

    crops: those that fit, of which a pixel is the mean; then not mirrored, and nothing but the mean is answered.
    """

    size: int
    wraps: bool = False
    mirrored: bool = False
    crops: bool = False


class Subsets(NamedTuple):
    """How sums over a subset for every number are made (`geodiff.local.subset_sums` has what is what): int32 tensors.

    mirror  int32 [d], where mirror images, which are rows then, too, have the numbers of a row; None: they are not
    """

    steps: Tensor
    terms: Tensor
    places: int
    largest: int
    additions: int
    temperature: float
    mirror: Tensor | None


class LocalNumbers(NamedTuple):
    """mean, variance [B, d], log_sum, ess and nearest [B, H, W]; without details, mean and log_sum alone are set."""

    mean: Tensor
    variance: Tensor
    log_sum: Tensor
    ess: Tensor
    nearest: Tensor


class CpuEngine(Engine):
    """Rows in memory (or memory-mapped), and what one pass over them found: norms [N], mean [d], radius."""

    checks_queries = True
    excludes = True
    bounds_errors = True

    def __init__(self, rows: Tensor, file: MappedFile | None = None) -> None:
        """rows: contiguous [N, d] on the CPU, of a dtype in STORED. Raises ValueError if it holds NaN or Inf.

        file: that they are mapped from, if they are; every call then raises DataError where it cannot be read, and what
        looks at all rows found is kept beside it.
        """
        if _cpu is None:
            raise BackendUnavailable(MISSING)
        super().__init__(rows)  # the core keeps only the address
        n, d = rows.shape
        try:
            found = statistics_of(rows, file)
        except DataError:
            raise
        except ValueError as error:  # std::domain_error carries the row number
            raise ValueError(f"data: expected finite values, found NaN or Inf in data[{error}]; allowed none") from None
        self._data: _cpu.Data | WithKeptCoordinates = _cpu.Data(
            rows.data_ptr(), number_of(rows.dtype), n, d, "" if file is None else file.path, found
        )
        self._prepared = False
        beside = SidecarFile.worth(rows, file, SUFFIX, FORMAT)
        if beside is not None:
            self._data = WithKeptCoordinates(self._data, beside)
        self.mean = torch.empty(d, dtype=torch.float64, device="cpu")
        self._data.mean(self.mean.data_ptr())
        #: which path answered each query of the last call, as numbers into PATHS: for tests and benchmarks
        self.last_paths = torch.empty(0, dtype=torch.int8, device="cpu")

    @cached_property
    def reach(self) -> float:
        return float(self._data.reach())

    def prepare(self) -> None:
        self._data.shape(isa(), torch.get_num_threads())
        self._prepared = True

    def posterior(self, query: Query, topk: int = 0) -> Posterior:
        batch, d = query.x.shape
        numbers = torch.empty(6, batch, dtype=torch.float64, device="cpu")
        mean = torch.empty(batch, d, dtype=torch.float64, device="cpu")
        indices = torch.empty(batch, topk, dtype=torch.int64, device="cpu")
        weights = torch.empty(batch, topk, dtype=torch.float64, device="cpu")
        paths = torch.empty(batch, dtype=torch.int8, device="cpu")
        answer = _cpu.Answer()
        answer.mean = mean.data_ptr()
        answer.log_sum, answer.entropy, answer.ess, answer.trace, *errors = (row.data_ptr() for row in numbers)
        answer.mean_error, answer.log_error = errors
        answer.index, answer.weight, answer.path = indices.data_ptr(), weights.data_ptr(), paths.data_ptr()
        with _Passed(query) as passed:
            self._data.posterior(passed, topk, answer)
        self.last_paths = paths
        log_sum, entropy, ess, trace, *errors = numbers
        log_prob = log_sum - _float64(query.log_normaliser)
        return Posterior(mean, log_prob, entropy, ess, indices, weights, trace, bounds=Bounds(*errors))

    def memory(self, batch: int) -> Any:
        return _cpu.Memory(batch, self._prepared)

    def combine(self, query: Query, into: Combination, memory: Any = None) -> Cost:
        if not into.in_place(query.x):
            check_levels(query.sigma)
            check_finite(query.x, "x")
            return super().combine(query, into)
        batch = len(query)
        paths = torch.empty(batch, dtype=torch.int8, device="cpu")
        error = None if memory is None else torch.empty(batch, dtype=torch.float64, device="cpu")
        with _Passed(query) as passed:
            try:
                rows = self._data.combine(
                    query=passed,
                    gain=into.gain,
                    terms=[(factor, values.data_ptr()) for factor, values in into.terms],
                    out=into.out.data_ptr(),
                    memory=memory,
                    told=(paths.data_ptr(), 0 if error is None else error.data_ptr()),
                )
            except ValueError:  # std::domain_error: the core looks at sigma and x while it reads them
                check_levels(query.sigma)
                check_finite(query.x, "x")
                raise
        self.last_paths = paths
        if error is None:
            return UNTOLD
        counts = paths.bincount(minlength=len(PATHS)).tolist()
        taken = {name: count for name, count in zip(PATHS, counts, strict=True) if count}
        return Cost(taken, rows, float(error.max()) if batch else 0.0)

    def covariance(self, query: Query, direction: Direction) -> tuple[Tensor, Tensor]:
        mean, v, slope = _float64(direction.mean), _float64(direction.v), _float64(direction.slope)
        with_rows = torch.empty(query.x.shape, dtype=torch.float64, device="cpu")
        with_distance = torch.empty(len(query), dtype=torch.float64, device="cpu")
        with _Passed(query) as passed:
            self._data.covariance(
                query=passed,
                mean=mean.data_ptr(),
                v=v.data_ptr(),
                slope=slope.data_ptr(),
                with_rows=with_rows.data_ptr(),
                with_distance=with_distance.data_ptr(),
            )
        return with_rows, with_distance

    def draw(self, query: Query, uniform: Tensor) -> Tensor:
        numbers = _float64(uniform)
        found = torch.empty(uniform.shape, dtype=torch.int64, device="cpu")
        with _Passed(query) as passed:
            self._data.draw(passed, count=uniform.shape[1], uniform=numbers.data_ptr(), index=found.data_ptr())
        return found

    def local(
        self, query: Query, images: tuple[tuple[int, int, int], tuple[int, int, int]], window: Window, *, details: bool
    ) -> LocalNumbers:
        """Local denoisers; images: shape (C, H, W), and the strides of its axes in a row."""
        batch, d = query.x.shape
        pixels = images[0][1:]
        mean, variance = torch.empty(2, batch, d, dtype=torch.float64, device="cpu")
        log_sum, ess = torch.empty(2, batch, *pixels, dtype=torch.float64, device="cpu")
        nearest = torch.empty(batch, *pixels, dtype=torch.int64, device="cpu")
        patch = torch.full((batch,), window.size, dtype=torch.int64, device="cpu")
        asked, answer = _cpu.Local(*images), _cpu.LocalAnswer()
        asked.patch, asked.crops = patch.data_ptr(), window.crops
        asked.wraps, asked.mirrored = window.wraps, window.mirrored
        answer.mean, answer.log_sum = mean.data_ptr(), log_sum.data_ptr()
        self.last_paths = torch.empty(batch, dtype=torch.int8, device="cpu")
        answer.path = self.last_paths.data_ptr()
        if details:
            answer.variance, answer.ess, answer.top = variance.data_ptr(), ess.data_ptr(), nearest.data_ptr()
        with _Passed(query) as passed:
            self._data.local(passed, asked, answer)
        return LocalNumbers(mean, variance, log_sum, ess, nearest)

    def subset(self, query: Query, subsets: Subsets) -> tuple[Tensor, Tensor]:
        """A posterior for every number: r [B, d], and whether its logits have the digits that `tol` asks for [B]."""
        mean = torch.empty(query.x.shape, dtype=torch.float64, device="cpu")
        held = torch.empty(len(query), dtype=torch.int8, device="cpu")
        steps, terms, places, largest, additions, temperature, mirror = subsets
        asked = _cpu.Subset(
            steps=steps.data_ptr(),
            terms=terms.data_ptr(),
            places=places,
            largest=largest,
            additions=additions,
            temperature=temperature,
            mirror=0 if mirror is None else mirror.data_ptr(),
        )
        with _Passed(query) as passed:
            self._data.subset(passed, asked, mean.data_ptr(), held.data_ptr())
        return mean, held.bool()

    def inner_products(self, x: Tensor) -> Tensor:
        queries = _float64(x)
        out = torch.empty(len(x), len(self.rows), dtype=torch.float64, device="cpu")
        self._data.inner_products(_query(len(x), x=queries), out.data_ptr())
        return out

    def weighted_mean(self, logits: Tensor, tol: float) -> Tensor:
        weights = _float64(logits)
        mean = torch.empty(len(logits), self.rows.shape[1], dtype=torch.float64, device="cpu")
        self._data.weighted_mean(_query(len(logits), tol=tol), weights.data_ptr(), mean.data_ptr())
        return mean

    def squared_distances(self, x: Tensor, candidates: Tensor) -> Tensor:
        queries, rows = _float64(x), candidates.cpu().contiguous()
        out = torch.empty(rows.shape, dtype=torch.float64, device="cpu")
        query = _query(len(x), x=queries)
        self._data.squared_distances(query, rows.data_ptr(), rows.shape[1], out.data_ptr())
        return out


def _query(batch: int, *, x: Tensor | None = None, tol: float = 0.0) -> Any:
    """A query of the core on the instruction set in use; x [batch, d] must outlive it."""
    query = _cpu.Query(isa())
    query.x = 0 if x is None else x.data_ptr()
    query.batch, query.tol, query.threads = batch, tol, torch.get_num_threads()
    return query


class _Passed:
    """A query as the core takes it: addresses, so that what they point to must live as long as the call."""

    def __init__(self, query: Query) -> None:
        x = query.x.detach() if query.x.dtype == torch.float32 else _float64(query.x)
        prior = None if query.log_prior is None else _float64(query.log_prior)
        exclude = None if query.exclude is None else query.exclude.to("cpu", torch.int64).contiguous()
        self._held = x.cpu().contiguous(), _float64(query.sigma), prior, exclude
        self._rows, self._tol, self._log_tol = query.rows, query.tol, query.log_tol

    def __enter__(self) -> Any:
        x, sigma, log_prior, exclude = self._held
        query = _query(x.shape[0], x=x, tol=self._tol)
        query.single = x.dtype == torch.float32
        query.sigma = sigma.data_ptr()
        query.log_tol = self._log_tol
        if log_prior is not None:
            query.log_prior = log_prior.data_ptr()
            query.log_prior_stride = 0 if log_prior.ndim == 1 else log_prior.shape[1]
        if exclude is not None:
            query.exclude = exclude.data_ptr()
        query.begin, query.end = self._rows.start, self._rows.stop
        return query

    def __exit__(self, *_: object) -> None:
        """Nothing to do: being held until here is the point."""


def _float64(values: Tensor) -> Tensor:
    return values.detach().to("cpu", torch.float64).contiguous()
