"""The compiled GPU core (csrc/cuda), behind the `Engine` interface.

Nothing here waits for the device once the engine is open, so that whole trajectories can be captured into a CUDA graph.
"""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from geodiff.backends.combination import Combination
from geodiff.backends.cost import Cost
from geodiff.backends.engine import Engine
from geodiff.backends.query import Direction, Query
from geodiff.base.dtypes import PRECISE, centred_units, number_of
from geodiff.base.errors import BackendUnavailable
from geodiff.base.inverse_cdf import fallen
from geodiff.base.posterior import Posterior, weights_of

if TYPE_CHECKING:
    from geodiff import _cuda

try:
    import geodiff._cuda as _core
except ModuleNotFoundError:  # what a wheel is, and a build where there was no nvcc
    _core = None  # type: ignore[assignment]
    _NOT_BUILT = "this installation was built without CUDA; GEODIFF_CUDA=ON builds it from source"
except ImportError as error:
    _core = None  # type: ignore[assignment]
    _NOT_BUILT = f"the compiled extension geodiff._cuda does not load: {error}"
else:
    _NOT_BUILT = ""

#: What answered a query, by its number in csrc/common/stored.h: the pass over bytes, or float64 differences.
PATHS = {1: "dense", 3: "exact"}
#: Passes over uint8 rows that GEODIFF_CUDA_PASS may name, by their number in csrc/cuda/types.h.
PASSES = {"stream": 1, "dense": 2, "fused": 3}
#: The oldest compute capability that the core is compiled for.
OLDEST = (8, 0)

_CHUNK = 2**22  # numbers widened to float64 at a time, while a data set is measured
_PAIRS = 2**22  # distances held at a time, while the nearest rows are looked for
_MOST_TERMS = 3  # of a step that the core takes (csrc/cuda/combine.h)
_PARTS = 64  # shares of the rows in a weighted sum, at most
_SUMS = 2**24  # numbers in their sums
_QUERIES = 256  # of a covariance or of draws at a time
_SHARES = 2**10  # blocks of a covariance: shares of the rows times queries


class Core(Protocol):
    """What the engine asks of geodiff._cuda; the tests put an emulated one in its place."""

    Data: "type[_cuda.Data]"
    Arguments: "type[_cuda.Arguments]"
    Result: "type[_cuda.Result]"
    Covariance: "type[_cuda.Covariance]"
    Masses: "type[_cuda.Masses]"
    Picks: "type[_cuda.Picks]"
    Combined: "type[_cuda.Combined]"
    Products: "type[_cuda.Products]"
    LOT: int


def reason_missing() -> str:
    """Why this backend cannot be used here, or an empty string."""
    if _NOT_BUILT:
        return _NOT_BUILT
    if not torch.cuda.is_available():
        return "no CUDA device"
    # A runtime asks for a driver of its own major version or a later one.
    if _core.driver() // 1000 < _core.runtime() // 1000:
        return f"built with CUDA {runtime()}, and the driver serves {_version(_core.driver())}"
    return too_old(torch.device("cuda"))


def too_old(device: torch.device) -> str:
    """Why the core does not run on that device, or an empty string."""
    found = torch.cuda.get_device_capability(device)
    if found >= OLDEST:
        return ""
    return "compiled for compute capability {}.{} and later, found {}.{}".format(*OLDEST, *found)


def runtime() -> str:
    """The CUDA runtime that the core was linked with, as "13.0"."""
    return _version(_core.runtime())


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def streams(device: torch.device, dtype: torch.dtype, d: int, batch: int) -> bool:
    """Whether one pass over the bytes serves calls of `batch` queries of d numbers there; else float64 alone does.

    That depends on the shared memory of the device, and on whether its blocks can share a row among them.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    return _core.streams(index, number_of(dtype), d, batch)


def dense(device: torch.device, dtype: torch.dtype, d: int) -> bool:
    """Whether the dense pass of sm_90a serves calls over rows of d numbers there, of any number of queries.

    Its memory engine takes rows that start at multiples of 16 bytes.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    return _core.dense(index, number_of(dtype), d, 1)


def asked_pass() -> int:
    """The pass over uint8 rows that GEODIFF_CUDA_PASS names, a value of PASSES; 0: the one that was measured fastest.

    An engine keeps what it was opened with, and takes another pass where that one does not serve. Raises ValueError if
    the variable names none of PASSES.
    """
    name = os.environ.get("GEODIFF_CUDA_PASS", "")
    if name and name not in PASSES:
        raise ValueError(f"GEODIFF_CUDA_PASS: expected a pass over uint8 rows, found {name!r}; allowed {list(PASSES)}")
    return PASSES.get(name, 0)


class CudaEngine(Engine):
    """Rows on a GPU, and what two passes over them found: norms [N], mean [d], radius."""

    capturable = True
    excludes = True

    def __init__(self, rows: Tensor, core: Core | None = None) -> None:
        """rows: contiguous [N, d] on a CUDA device, of a dtype in STORED. Raises ValueError if it holds NaN or Inf."""
        core = core or _core
        if core is None:
            raise BackendUnavailable(_NOT_BUILT)
        self._core = core
        if rows.is_cuda and (reason := too_old(rows.device)):  # which need not be the current device
            raise BackendUnavailable(reason)
        super().__init__(rows)  # the core keeps only the address
        n, d = rows.shape
        self._shift, self._unit = centred_units(rows.dtype)
        self._half_norm = torch.empty(n, dtype=torch.float64, device=rows.device)
        mean = self._measure_norms()
        away, model = self._measure_distances(mean)
        self.mean = (mean + self._shift) / self._unit
        self._data = core.Data(
            rows=rows.data_ptr(),
            dtype=number_of(rows.dtype),
            shape=(n, d),
            half_norm=self._half_norm.data_ptr(),
            radii=(away, math.sqrt(2 * float(self._half_norm.max())), model),
            device=rows.device.index or 0,
            pass_=asked_pass(),
        )
        #: which path answered each query of the last call, as keys of PATHS: for tests and benchmarks
        self.last_paths = torch.empty(0, dtype=torch.int8)

    def posterior(self, query: Query, topk: int = 0) -> Posterior:
        query = self._placed(query)
        answer = self._answer(query)
        if topk == 0:
            return answer
        indices, weights = self._nearest(query, topk, answer.log_prob)
        return replace(answer, indices=indices, weights=weights)

    def combine(self, query: Query, into: Combination, memory: object = None) -> Cost:
        mean, _ = self._run(self._placed(query, PRECISE))
        if len(into.terms) > _MOST_TERMS or not into.in_place():
            into.write(mean)
        elif into.out.numel():
            combined = self._core.Combined()
            combined.mean, combined.gain = mean.data_ptr(), into.gain
            combined.terms = [(factor, values.data_ptr()) for factor, values in into.terms]
            combined.out, combined.size = into.out.data_ptr(), into.out.numel()
            combined.single = into.out.dtype == torch.float32
            self._data.combine(combined, self._stream())
        return Cost({"posterior": len(query)})

    def inner_products(self, x: Tensor) -> Tensor:
        return self._pairs(self._float64(x), range(len(self.rows)), self._data.inner_products)

    def weighted_mean(self, logits: Tensor, tol: float) -> Tensor:
        weights = self._float64(logits).softmax(1)
        (batch, n), d = weights.shape, self.rows.shape[1]
        parts = max(1, min(_PARTS, n // 64, _SUMS // max(1, batch * d)))
        sums = torch.empty(parts, batch, d, dtype=torch.float64, device=self.rows.device)
        if batch:
            self._data.weighted_sum(self._products(weights, range(n), sums), parts, self._stream())
        return sums.sum(0)

    def squared_distances(self, x: Tensor, candidates: Tensor) -> Tensor:
        queries, listed = self._float64(x), candidates.to(self.rows.device).contiguous()
        out = torch.empty(listed.shape, dtype=torch.float64, device=self.rows.device)
        if listed.numel():
            products = self._products(queries, range(listed.shape[1]), out)
            products.list = listed.data_ptr()
            self._data.distances(products, self._stream())
        return out

    def covariance(self, query: Query, direction: Direction) -> tuple[Tensor, Tensor]:
        query, r = self._placed(query), self._centred_queries(direction.mean)
        v, slope = self._float64(direction.v) / self._unit, self._float64(direction.slope) / self._unit**2
        x = self._centred_queries(query.x)
        along = torch.stack([(r * v).sum(1), (x - r).square().sum(1), slope])
        (batch, d), n = x.shape, len(query.rows)
        rows, far = torch.empty_like(x), torch.empty_like(slope)
        most = max(1, min(_QUERIES, _SUMS // d))
        for part in (slice(start, start + most) for start in range(0, batch, most)):
            some = query.picked(torch.arange(batch, device=x.device)[part])
            parts = max(1, min(_SHARES // len(some), n // 64, _SUMS // (len(some) * d)))
            sums = torch.empty(parts, len(some), d, dtype=torch.float64, device=x.device)
            states = torch.empty(parts, len(some), 5, dtype=torch.float64, device=x.device)
            own = along[:, part].contiguous()
            asked = self._core.Covariance()
            asked.mean, asked.v, asked.along = r[part].data_ptr(), v[part].data_ptr(), own.data_ptr()
            asked.parts, asked.sums, asked.states = parts, sums.data_ptr(), states.data_ptr()
            asked.with_rows, asked.with_far = rows[part].data_ptr(), far[part].data_ptr()
            self._data.covariance(self._arguments(some, x[part]), asked, self._stream())
        return rows / self._unit, far / self._unit**2

    def draw(self, query: Query, uniform: Tensor) -> Tensor:
        query, numbers = self._placed(query), self._float64(uniform)
        x, count = self._centred_queries(query.x), numbers.shape[1]
        batch, lots = len(query), -(-len(query.rows) // self._core.LOT)
        found = torch.empty(numbers.shape, dtype=torch.int64, device=x.device)
        if not numbers.numel():
            return found
        for part in (slice(start, start + _QUERIES) for start in range(0, batch, _QUERIES)):
            some = query.picked(torch.arange(batch, device=x.device)[part])
            arguments = self._arguments(some, x[part])
            top, mass = torch.empty(2, lots, len(some), dtype=torch.float64, device=x.device)
            masses, picks = self._core.Masses(), self._core.Picks()
            masses.top, masses.mass = top.data_ptr(), mass.data_ptr()
            self._data.masses(arguments, masses, self._stream())
            lot, target = fallen(top, mass, numbers[part])
            picks.top, picks.lot, picks.target = top.data_ptr(), lot.data_ptr(), target.data_ptr()
            picks.count, picks.row = count, found[part].data_ptr()
            self._data.picks(arguments, picks, self._stream())
        return found + query.rows.start

    # ---- calls ----

    def _arguments(self, query: Query, x: Tensor, listed: Tensor | None = None) -> "_cuda.Arguments":
        """The question with numbers x; it holds addresses, so all of these must outlive it."""
        prior, exclude = query.log_prior, query.exclude
        asked = self._core.Arguments()
        asked.x, asked.single, asked.sigma = x.data_ptr(), x.dtype == torch.float32, query.sigma.data_ptr()
        if prior is not None:
            asked.bias, asked.bias_stride = prior.data_ptr(), 0 if prior.ndim == 1 else prior.shape[1]
        if exclude is not None:
            asked.exclude = exclude.data_ptr()
        asked.batch, asked.begin, asked.end, asked.tol = len(query), query.rows.start, query.rows.stop, query.tol
        if listed is not None:
            asked.list, asked.listed = listed.data_ptr(), listed.shape[1]
        return asked

    def _run(self, query: Query, listed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """r [B, d], and log sum, entropy, effective sample size and mean log prior, [4, B]."""
        batch, d = query.x.shape
        device = self.rows.device
        mean = torch.empty(batch, d, dtype=torch.float64, device=device)
        numbers = torch.empty(4, batch, dtype=torch.float64, device=device)
        paths = torch.empty(batch, dtype=torch.int8, device=device)
        if batch:
            plan = self._data.plan(rows=len(query.rows), batch=batch)
            workspace = torch.empty(plan.workspace, dtype=torch.uint8, device=device)
            result = self._core.Result()
            result.mean, result.path = mean.data_ptr(), paths.data_ptr()
            result.log_sum, result.entropy, result.ess, result.mean_bias = (row.data_ptr() for row in numbers)
            asked = self._arguments(query, query.x, listed)
            self._data.posterior(asked, plan, workspace.data_ptr(), result, self._stream())
        self.last_paths = paths
        return mean, numbers

    def _answer(self, query: Query, listed: Tensor | None = None) -> Posterior:
        x, sigma = query.x, query.sigma
        mean, numbers = self._run(query, listed)
        log_sum, entropy, ess, mean_prior = numbers
        log_prob = log_sum - query.log_normaliser
        # Of the weights' logarithms, log pi_i - |x - x_i|^2 / 2 sigma^2 - log_sum, the mean is -entropy.
        far = 2 * sigma.square() * (entropy + mean_prior - log_sum)  # E_w |x - x_i|^2
        trace = (far - (x - mean).square().sum(1)).clamp(min=0)
        nobody = torch.empty(len(query), 0, dtype=torch.int64, device=x.device)
        return Posterior(mean, log_prob, entropy, ess, nobody, nobody.double(), trace)

    def _nearest(self, query: Query, topk: int, log_prob: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and weights of the `topk` largest logits, -1 where there are fewer; of equals the lower row first."""
        x, sigma, rows, batch = query.x, query.sigma, query.rows, len(query)
        scale = -0.5 / sigma.square()[:, None]
        logits = x.new_empty(batch, 0)
        indices = torch.empty(batch, 0, dtype=torch.int64, device=x.device)
        step = max(topk, _PAIRS // max(1, batch))
        for start in range(rows.start, rows.stop, step):
            part = range(start, min(start + step, rows.stop))
            found = self._pairs(x, part, self._data.distances) * scale
            if query.log_prior is not None:
                found += query.log_prior[..., part.start : part.stop]
            places = torch.arange(part.start, part.stop, device=x.device).expand(batch, -1)
            if query.exclude is not None:
                found = found.masked_fill(places == query.exclude[:, None], -torch.inf)
            # What is kept stands first, and a stable sort leaves equals in their order.
            logits, order = torch.cat([logits, found], 1).sort(dim=1, descending=True, stable=True)
            logits = logits[:, :topk]
            indices = torch.cat([indices, places], 1).gather(1, order[:, :topk])
        return torch.where(logits.isneginf(), -1, indices), weights_of(logits, log_prob + query.log_normaliser)

    def _placed(self, query: Query, kept: tuple[torch.dtype, ...] = ()) -> Query:
        """The query in float64, but for x of a dtype in `kept`, where the rows are."""
        prior = None if query.log_prior is None else self._float64(query.log_prior)
        exclude = query.exclude
        if exclude is not None:
            exclude = exclude.to(self.rows.device, torch.int64).contiguous()
        x = query.x.detach().to(self.rows.device).contiguous() if query.x.dtype in kept else self._float64(query.x)
        return replace(query, x=x, sigma=self._float64(query.sigma), log_prior=prior, exclude=exclude)

    def _products(self, numbers: Tensor, rows: range, out: Tensor) -> "_cuda.Products":
        """Of numbers [batch, ...], float64; it holds addresses, as `_arguments` does."""
        asked = self._core.Products()
        asked.numbers, asked.batch, asked.out = numbers.data_ptr(), len(numbers), out.data_ptr()
        asked.begin, asked.end = rows.start, rows.stop
        return asked

    def _pairs(self, x: Tensor, rows: range, kernel: "Callable[[_cuda.Products, int], None]") -> Tensor:
        """What `kernel` makes of every query and row, [B, len(rows)] float64."""
        out = torch.empty(len(x), len(rows), dtype=torch.float64, device=self.rows.device)
        if len(x):
            kernel(self._products(x, rows, out), self._stream())
        return out

    def _centred_queries(self, x: Tensor) -> Tensor:
        """x [B, d] in centred units, float64."""
        return self._float64(x) * self._unit - self._shift

    def _float64(self, value: Tensor) -> Tensor:
        return value.detach().to(self.rows.device, torch.float64).contiguous()

    def _stream(self) -> int:
        return torch.cuda.current_stream(self.rows.device).cuda_stream if self.rows.is_cuda else 0

    # ---- opening ----

    def _centred(self) -> Iterator[tuple[int, Tensor]]:
        """(first row, rows in centred units, float64), chunk by chunk."""
        step = max(1, _CHUNK // self.rows.shape[1])
        for start in range(0, len(self.rows), step):
            part = self.rows[start : start + step].double()
            yield start, part - 128 if self.rows.dtype == torch.uint8 else part

    def _measure_norms(self) -> Tensor:
        total = torch.zeros(self.rows.shape[1], dtype=torch.float64, device=self.rows.device)
        for start, part in self._centred():
            self._half_norm[start : start + len(part)] = part.square().sum(1) / 2
            total += part.sum(0)
        bad = (~self._half_norm.isfinite()).nonzero()
        if len(bad):
            raise ValueError(f"data: expected finite values, found NaN or Inf in data[{int(bad[0])}]; allowed none")
        return total / len(self.rows)

    def _measure_distances(self, mean: Tensor) -> tuple[float, float]:
        """max |v - mean| and max |v + shift|, centred units."""
        away = model = 0.0
        for _, part in self._centred():
            model = max(model, float((part + self._shift).norm(dim=1).max()))
            away = max(away, float((part - mean).norm(dim=1).max()))
        return away, model
