"""The Triton kernels (geodiff.kernels), behind the `Engine` interface. Importing this needs the package triton."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from geodiff.backends.combination import Combination
from geodiff.backends.cost import Cost
from geodiff.backends.engine import Engine
from geodiff.backends.query import Direction, Query
from geodiff.base.posterior import Posterior
from geodiff.kernels.asked import Asked
from geodiff.kernels.combine import MOST_TERMS, combine
from geodiff.kernels.configs import INTERPRETED
from geodiff.kernels.covariance import covariance
from geodiff.kernels.decide import finish
from geodiff.kernels.drawn import drawn
from geodiff.kernels.evaluate import chunk_rows, evaluate
from geodiff.kernels.given import weighted_mean
from geodiff.kernels.logits import logits
from geodiff.kernels.merge import Running
from geodiff.kernels.prepared import Prepared
from geodiff.kernels.queries import prepare
from geodiff.kernels.ranking import ranked
from geodiff.kernels.refine import all_products, full_sum, pair_distances
from geodiff.kernels.seen import Seen

#: The path that answered a query: see kernels/README.md.
PATHS = ("screened", "dense", "dense_fine", "exact")

_QUERIES = 1024  # per pass over the data
_NUMBERS = 2**24  # numbers in the queries of a pass


class _Found(NamedTuple):
    """What a pass over the data left: its part of the batch, what was asked, and what was found."""

    part: slice
    asked: Asked
    found: Running


class TritonEngine(Engine):
    """Rows on a GPU, and what one look at them found: norms, mean, distances from the mean.

    Every query is answered by one of four paths, which are all launched, and told by flags on the device whether to
    work: dense with three or four digits, float64 differences over the few rows that count, or over all of them. So
    nothing waits for the device, but for `topk`.
    """

    capturable = True
    excludes = True

    def __init__(self, rows: Tensor) -> None:
        """rows: contiguous [N, d], uint8, float16, bfloat16 or float32. Raises ValueError if it holds NaN or Inf."""
        if rows.device.type != ("cpu" if INTERPRETED else "cuda"):
            raise ValueError(
                f"data: expected on a device that backend 'triton' serves, found on {rows.device}; "
                f"allowed {'cpu, since Triton interprets' if INTERPRETED else 'cuda'}"
            )
        super().__init__(rows)
        self._device = rows.device
        with self._on():
            self._data = Prepared(rows)
        self.mean = (self._data.mean + self._data.shift) / self._data.unit
        #: which path answered each query of the last call, as numbers into PATHS: for tests and benchmarks
        self.last_paths = torch.empty(0, dtype=torch.int8)

    def posterior(self, query: Query, topk: int = 0) -> Posterior:
        batch, device = len(query), self._device
        query = replace(query, sigma=self._float64(query.sigma))
        mean = self._new(batch, self.rows.shape[1])
        out = self._new(4, batch)
        indices, weights = torch.empty(batch, topk, dtype=torch.int64, device=device), self._new(batch, topk)
        with self._on():
            for part, asked, found in self._solve(query, mean):
                finish(asked, found, out[:, part])  # with a prior, `Query.log_mass` has to say what its mass is
                if topk:
                    rows, weights[part] = ranked(self._data, asked, found.queries, found.told[0], topk)
                    indices[part] = torch.where(rows < 0, -1, rows + query.rows.start)
        log_prob, entropy, ess, trace = out
        if query.exclude is not None:
            log_prob = log_prob - torch.as_tensor(query.log_mass, device=device)
        return Posterior(mean, log_prob, entropy, ess, indices, weights, trace)

    def combine(self, query: Query, into: Combination, memory: object = None) -> Cost:
        if len(into.terms) > MOST_TERMS or not into.in_place():
            return super().combine(query, into)
        mean = self._new(len(query), self.rows.shape[1])
        with self._on():
            for _ in self._solve(query, mean):
                pass
            combine(mean, *into)
        return Cost({"posterior": len(query)})

    def covariance(self, query: Query, direction: Direction) -> tuple[Tensor, Tensor]:
        mean, v, slope = (self._float64(one) for one in (direction.mean, direction.v, direction.slope))
        rows, far = torch.empty_like(v), torch.empty_like(slope)
        with self._on():
            for part, asked in self._passes(query):
                covariance(self._data, asked, mean[part], v[part], slope[part], (rows[part], far[part]))
        return rows, far

    def draw(self, query: Query, uniform: Tensor) -> Tensor:
        numbers = self._float64(uniform)
        found = torch.empty(numbers.shape, dtype=torch.int64, device=self._device)
        if numbers.numel():
            with self._on():
                for part, asked in self._passes(query):
                    found[part] = drawn(self._data, asked, numbers[part])
        return found + query.rows.start

    def inner_products(self, x: Tensor) -> Tensor:
        data, points = self._data, self._float64(x)
        out = self._new(len(points), len(data.rows))
        with self._on():
            for start in range(0, len(points), _QUERIES):
                part = slice(start, min(start + _QUERIES, len(points)))
                at_a_time = chunk_rows(data, part.stop - part.start)
                for first in range(0, len(data.rows), at_a_time):
                    rows = slice(first, first + at_a_time)
                    out[part, rows] = self._products(points[part], data.rows[rows])
        return (out + data.shift * points.sum(1, keepdim=True)) / data.unit

    def _products(self, x: Tensor, rows: Tensor) -> Tensor:
        """<x_b, v_i>, [B, C] float64: by tensor cores where that is exact, for uint8, else in plain float64."""
        if rows.dtype != torch.uint8:
            return all_products(x, rows)
        ones, found = x.new_ones(len(x)), x.new_empty(len(x), len(rows))
        model = (x + self._data.shift) / self._data.unit
        # At tol 0, so that no digit is saved.
        queries = prepare(self._data, model, ones, n=len(rows), tol=0.0, dithered=False)
        logits(queries, rows, x.new_zeros(len(rows)), Seen(), ones, found)
        return found

    def weighted_mean(self, logits: Tensor, tol: float) -> Tensor:
        scores = logits.detach().to(self._device, torch.float64)
        scores = scores - scores.amax(1, keepdim=True)
        out = self._new(len(scores), self.rows.shape[1])
        with self._on():
            for start in range(0, len(scores), _QUERIES):
                part = slice(start, start + _QUERIES)
                done = weighted_mean(self._data, scores[part], tol, out[part])
                if not done.all():
                    open_ = start + (~done).nonzero()[:, 0]
                    weights = scores[open_].softmax(1).contiguous()
                    out[open_] = (full_sum(weights, self._data.rows) + self._data.shift) / self._data.unit
        return out

    def squared_distances(self, x: Tensor, candidates: Tensor) -> Tensor:
        rows = candidates.to(self._device)
        queries = torch.arange(len(rows), device=self._device).repeat_interleave(rows.shape[1])
        with self._on():
            flat = rows.clamp_min(0).flatten()
            distances = pair_distances(self._centred(x), self._data.rows, queries, flat).reshape(rows.shape)
        return (distances / self._data.unit**2).masked_fill(rows < 0, torch.inf)

    def _solve(self, query: Query, mean: Tensor) -> Iterator[_Found]:
        """Writes mean [B, d], pass by pass."""
        self.last_paths = torch.empty(len(mean), dtype=torch.int8, device=self._device)
        for part, asked in self._passes(query):
            yield _Found(part, asked, evaluate(self._data, asked, mean[part], self.last_paths[part]))

    def _passes(self, query: Query) -> Iterator[tuple[slice, Asked]]:
        """The query in parts of at most _QUERIES, where the rows are."""
        batch, d = query.x.shape
        x = query.x.detach().to(self._device)
        x = x if x.stride(-1) == 1 else x.contiguous()
        sigma = self._float64(query.sigma)
        seen = Seen.on(self._device, query.prior_of_rows, query.excluded_of_rows)
        at_a_time = max(8, min(_QUERIES, _NUMBERS // d))
        for start in range(0, batch, at_a_time):
            part = slice(start, min(start + at_a_time, batch))
            yield part, Asked(query.rows.start, len(query.rows), x[part], sigma[part], seen.queries(part), query.tol)

    def _centred(self, x: Tensor) -> Tensor:
        """x [B, d] in centred units, float64."""
        return self._float64(x) * self._data.unit - self._data.shift

    def _float64(self, values: Tensor) -> Tensor:
        return values.detach().to(self._device, torch.float64).contiguous()

    def _new(self, *shape: int) -> Tensor:
        return torch.empty(*shape, dtype=torch.float64, device=self._device)

    def _on(self) -> AbstractContextManager[object]:
        """Kernels start on the current device: make it the data's."""
        return torch.cuda.device(self._device) if self._device.type == "cuda" else contextlib.nullcontext()
