"""The compiled CPU core (csrc/cpu), behind the `Engine` interface."""

import contextlib
import math
import os
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from geodiff.arguments import check_finite
from geodiff.backends.engine import Combination, Engine
from geodiff.errors import BackendUnavailable
from geodiff.posterior import Posterior

try:
    from geodiff import _cpu
except ImportError as error:  # a source tree that was never built
    _cpu = None  # type: ignore[assignment]
    MISSING = f"the compiled extension geodiff._cpu does not load: {error}"
else:
    MISSING = ""

#: Storage dtypes and their number in csrc/cpu/types.h.
DTYPES = {torch.uint8: 0, torch.float16: 1, torch.bfloat16: 2, torch.float32: 3}
#: The path that answered a query, by its number in csrc/cpu/types.h: see csrc/cpu/README.md.
PATHS = ("screened", "dense", "dense_fine", "exact")

_chosen: ContextVar[str] = ContextVar("geodiff_isa", default="")


def isas() -> list[str]:
    """The instruction sets that this build has and this machine runs, slowest first."""
    return _cpu.isas() if _cpu is not None else []


def isa() -> str:
    """The instruction set in use: `use_isa`, else the environment variable GEODIFF_ISA, else the best there is.

    Raises ValueError if GEODIFF_ISA names one that this machine does not have.
    """
    return _checked(_chosen.get() or os.environ.get("GEODIFF_ISA", ""))


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


class CpuEngine(Engine):
    """Rows in memory (or memory-mapped), and what one pass over them found: norms [N], mean [d], radius."""

    checks_queries = True

    def __init__(self, rows: Tensor) -> None:
        """rows: contiguous [N, d] on the CPU, of a dtype in DTYPES. Raises ValueError if it holds NaN or Inf."""
        if _cpu is None:
            raise BackendUnavailable(MISSING)
        super().__init__(rows)  # the core keeps only the address
        n, d = rows.shape
        try:
            self._data = _cpu.Data(rows.data_ptr(), DTYPES[rows.dtype], n, d, torch.get_num_threads())
        except ValueError as error:  # std::domain_error carries the row number
            raise ValueError(f"data: expected finite values, found NaN or Inf in data[{error}]; allowed none") from None
        self.mean = torch.empty(d, dtype=torch.float64)
        self._data.mean(self.mean.data_ptr())
        #: which path answered each query of the last call, as numbers into PATHS: for tests and benchmarks
        self.last_paths = torch.empty(0, dtype=torch.int8)

    def posterior(
        self, x: Tensor, sigma: Tensor, *, topk: int, tol: float, log_prior: Tensor | None, rows: range
    ) -> Posterior:
        batch, d = x.shape
        numbers = torch.empty(4, batch, dtype=torch.float64)
        mean = torch.empty(batch, d, dtype=torch.float64)
        indices = torch.empty(batch, topk, dtype=torch.int64)
        weights = torch.empty(batch, topk, dtype=torch.float64)
        paths = torch.empty(batch, dtype=torch.int8)
        with _Query(x, sigma, log_prior, rows, tol) as query:
            self._data.posterior(
                query=query,
                isa=isa(),
                topk=topk,
                mean=mean.data_ptr(),
                log_sum=numbers[0].data_ptr(),
                entropy=numbers[1].data_ptr(),
                ess=numbers[2].data_ptr(),
                trace=numbers[3].data_ptr(),
                index=indices.data_ptr(),
                weight=weights.data_ptr(),
                path=paths.data_ptr(),
            )
        self.last_paths = paths
        log_sum, entropy, ess, trace = numbers
        levels = sigma.detach().to("cpu", torch.float64)
        log_prob = log_sum - d * (levels.log() + 0.5 * math.log(2 * math.pi))
        if log_prior is None:
            log_prob -= math.log(len(rows))
        return Posterior(mean, log_prob, entropy, ess, indices, weights, trace)

    def combine(
        self, x: Tensor, sigma: Tensor, into: Combination, *, tol: float, log_prior: Tensor | None, rows: range
    ) -> None:
        if not into.lies_right(x):
            check_finite(x, "x")
            super().combine(x, sigma, into, tol=tol, log_prior=log_prior, rows=rows)
            return
        paths = torch.empty(len(x), dtype=torch.int8)
        with _Query(x, sigma, log_prior, rows, tol) as query:
            try:
                self._data.combine(
                    query=query,
                    isa=isa(),
                    out=into.out.data_ptr(),
                    gain=into.gain,
                    factors=[factor for factor, _ in into.terms],
                    terms=[values.data_ptr() for _, values in into.terms],
                    path=paths.data_ptr(),
                )
            except ValueError:  # std::domain_error: the core looks at x while it reads it
                check_finite(x, "x")
                raise
        self.last_paths = paths

    def covariance(
        self,
        x: Tensor,
        sigma: Tensor,
        mean: Tensor,
        v: Tensor,
        slope: Tensor,
        *,
        tol: float,
        log_prior: Tensor | None,
        rows: range,
    ) -> tuple[Tensor, Tensor]:
        centres, directions, slopes = _float64(mean), _float64(v), _float64(slope)
        with_rows = torch.empty(x.shape, dtype=torch.float64)
        with_distance = torch.empty(len(x), dtype=torch.float64)
        with _Query(x, sigma, log_prior, rows, tol) as query:
            self._data.covariance(
                query=query,
                isa=isa(),
                mean=centres.data_ptr(),
                v=directions.data_ptr(),
                slope=slopes.data_ptr(),
                with_rows=with_rows.data_ptr(),
                with_distance=with_distance.data_ptr(),
            )
        return with_rows, with_distance

    def draw(self, x: Tensor, sigma: Tensor, uniform: Tensor, *, log_prior: Tensor | None, rows: range) -> Tensor:
        numbers = _float64(uniform)
        found = torch.empty(uniform.shape, dtype=torch.int64)
        with _Query(x, sigma, log_prior, rows, 1.0) as query:
            self._data.draw(
                query=query, isa=isa(), count=uniform.shape[1], uniform=numbers.data_ptr(), index=found.data_ptr()
            )
        return found

    def inner_products(self, x: Tensor) -> Tensor:
        queries = _float64(x)
        out = torch.empty(len(x), len(self.rows), dtype=torch.float64)
        self._data.inner_products(isa(), queries.data_ptr(), len(x), torch.get_num_threads(), out.data_ptr())
        return out

    def weighted_mean(self, logits: Tensor, tol: float) -> Tensor:
        weights = _float64(logits)
        mean = torch.empty(len(logits), self.rows.shape[1], dtype=torch.float64)
        threads = torch.get_num_threads()
        self._data.weighted_mean(isa(), weights.data_ptr(), len(logits), tol, threads, mean.data_ptr())
        return mean

    def squared_distances(self, x: Tensor, candidates: Tensor) -> Tensor:
        queries, rows = _float64(x), candidates.cpu().contiguous()
        out = torch.empty(rows.shape, dtype=torch.float64)
        threads = torch.get_num_threads()
        batch, width = rows.shape
        self._data.squared_distances(isa(), queries.data_ptr(), rows.data_ptr(), batch, width, threads, out.data_ptr())
        return out


class _Query:
    """Queries as the core takes them: addresses, so that what they point to must live as long as the call."""

    def __init__(self, x: Tensor, sigma: Tensor, log_prior: Tensor | None, rows: range, tol: float) -> None:
        x = x.detach() if x.dtype == torch.float32 else _float64(x)
        self._held = x.cpu().contiguous(), _float64(sigma), None if log_prior is None else _float64(log_prior)
        self._rows, self._tol = rows, tol

    def __enter__(self) -> Any:
        x, sigma, bias = self._held
        return _cpu.Query(
            x=x.data_ptr(),
            single=x.dtype == torch.float32,
            sigma=sigma.data_ptr(),
            bias=0 if bias is None else bias.data_ptr(),
            bias_stride=0 if bias is None or bias.ndim == 1 else bias.shape[1],
            batch=len(x),
            begin=self._rows.start,
            end=self._rows.stop,
            tol=self._tol,
            threads=torch.get_num_threads(),
        )

    def __exit__(self, *_: object) -> None:
        """Nothing to do: being held until here is the point."""


def _float64(values: Tensor) -> Tensor:
    return values.detach().to("cpu", torch.float64).contiguous()
