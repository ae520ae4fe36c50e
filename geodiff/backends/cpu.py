"""The compiled CPU core (csrc/cpu), behind the `Engine` interface."""

import contextlib
import math
import os
from collections.abc import Iterator
from contextvars import ContextVar

import torch
from torch import Tensor

from geodiff.backends.engine import Engine
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

    def __init__(self, rows: Tensor) -> None:
        """rows: contiguous [N, d] on the CPU, of a dtype in DTYPES. Raises ValueError if it holds NaN or Inf."""
        if _cpu is None:
            raise BackendUnavailable(MISSING)
        self._rows = rows  # the core keeps only the address
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
        queries = x.detach().to("cpu", torch.float64).contiguous()
        levels = sigma.detach().to("cpu", torch.float64).contiguous()
        bias = None if log_prior is None else log_prior.to("cpu", torch.float64).contiguous()
        numbers = torch.empty(3, batch, dtype=torch.float64)
        mean = torch.empty(batch, d, dtype=torch.float64)
        indices = torch.empty(batch, topk, dtype=torch.int64)
        weights = torch.empty(batch, topk, dtype=torch.float64)
        paths = torch.empty(batch, dtype=torch.int8)
        self._data.posterior(
            isa=isa(),
            x=queries.data_ptr(),
            sigma=levels.data_ptr(),
            bias=0 if bias is None else bias.data_ptr(),
            batch=batch,
            begin=rows.start,
            end=rows.stop,
            tol=tol,
            topk=topk,
            threads=torch.get_num_threads(),
            mean=mean.data_ptr(),
            log_sum=numbers[0].data_ptr(),
            entropy=numbers[1].data_ptr(),
            ess=numbers[2].data_ptr(),
            index=indices.data_ptr(),
            weight=weights.data_ptr(),
            path=paths.data_ptr(),
        )
        self.last_paths = paths
        log_sum, entropy, ess = numbers
        log_prob = log_sum - d * (levels.log() + 0.5 * math.log(2 * math.pi))
        if bias is None:
            log_prob -= math.log(len(rows))
        return Posterior(mean, log_prob, entropy, ess, indices, weights)

    def inner_products(self, x: Tensor) -> Tensor:
        queries = _float64(x)
        out = torch.empty(len(x), len(self._rows), dtype=torch.float64)
        self._data.inner_products(isa(), queries.data_ptr(), len(x), torch.get_num_threads(), out.data_ptr())
        return out

    def weighted_mean(self, logits: Tensor, tol: float) -> Tensor:
        weights = _float64(logits)
        mean = torch.empty(len(logits), self._rows.shape[1], dtype=torch.float64)
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


def _float64(x: Tensor) -> Tensor:
    return x.detach().to("cpu", torch.float64).contiguous()
