"""The Triton kernels (geodiff.kernels), behind the `Engine` interface. Importing this needs the package triton."""

import contextlib
import math
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from geodiff.backends.combination import Combination
from geodiff.backends.cost import Cost
from geodiff.backends.engine import Engine
from geodiff.backends.query import Query
from geodiff.base.posterior import Posterior
from geodiff.kernels.bounds import cutoff
from geodiff.kernels.combine import MOST_TERMS, combine
from geodiff.kernels.configs import INTERPRETED, ROWS
from geodiff.kernels.dense import DIGITS, DIGITS_FINE, dense, weigh
from geodiff.kernels.exact import exact
from geodiff.kernels.logits import logits
from geodiff.kernels.prepared import Prepared
from geodiff.kernels.queries import split
from geodiff.kernels.refine import all_products, full_sum, pair_distances
from geodiff.kernels.request import Answer, Request
from geodiff.kernels.screen import screen

#: The path that answered a query: see kernels/README.md.
PATHS = ("screened", "dense", "dense_fine", "exact")

_SAMPLE = 128  # rows looked at to guess how many carry weight
_FEW = 2048  # candidates expected up to which screening is tried first
_QUERIES = 256  # per pass over the data
_NUMBERS = 2**24  # numbers in the queries of a pass


class TritonEngine(Engine):
    """Rows on a GPU, and what one look at them found: norms, mean, distances from the mean.

    Every query goes to the cheapest pass that is likely to serve it, and on to a finer one where the bound on its error
    exceeds `tol`: screening, dense with three and with four digits, float64 difference form.
    """

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
        answer = self._solve(query, topk)
        levels, x = (value.detach().to(self._device, torch.float64) for value in (query.sigma, query.x))
        log_prob = answer.log_sum - x.shape[1] * (levels.log() + 0.5 * math.log(2 * math.pi))
        if query.log_prior is None:
            log_prob -= math.log(len(query.rows))
        # Of the weights' logarithms, log pi_i - |x - x_i|^2 / 2 sigma^2 - log_sum, the mean is -entropy.
        far = 2 * levels.square() * (answer.entropy + answer.bias - answer.log_sum)  # E_w |x - x_i|^2
        trace = (far - (x - answer.mean).square().sum(1)).clamp(min=0)
        indices = query.with_prior(answer.indices + query.rows.start)
        return Posterior(answer.mean, log_prob, answer.entropy, answer.ess, indices, answer.weights, trace)

    def combine(self, query: Query, into: Combination, memory: object = None) -> Cost:
        if len(into.terms) > MOST_TERMS or not into.in_place():
            return super().combine(query, into)
        answer = self._solve(query, 0)
        with self._on():
            combine(answer.mean, *into)
        return Cost({"posterior": len(query)})

    def inner_products(self, x: Tensor) -> Tensor:
        data, queries = self._data, x.detach().to(self._device, torch.float64).contiguous()
        out = queries.new_empty(len(queries), len(data.rows))
        with self._on():
            for start in range(0, len(queries), _QUERIES):
                part = slice(start, start + _QUERIES)
                for first in range(0, len(data.rows), ROWS):
                    out[part, first : first + ROWS] = self._products(queries[part], data.rows[first : first + ROWS])
        return (out + data.shift * queries.sum(1, keepdim=True)) / data.unit

    def _products(self, x: Tensor, rows: Tensor) -> Tensor:
        """<x_b, v_i>, [B, C] float64: by tensor cores where that is exact, for uint8, else in plain float64."""
        if rows.dtype != torch.uint8:
            return all_products(x, rows)
        found = x.new_empty(len(x), len(rows))
        zeros, ones = x.new_zeros(len(x)), x.new_ones(len(x))
        parts = split(x, rows.dtype, DIGITS_FINE, dithered=False)
        logits(parts, rows, x.new_zeros(len(rows)), None, zeros, ones, found)
        return found

    def weighted_mean(self, logits: Tensor, tol: float) -> Tensor:
        scores = logits.detach().to(self._device, torch.float64)
        scores = scores - scores.amax(1, keepdim=True)
        out = scores.new_empty(len(scores), self._data.rows.shape[1])
        with self._on():
            for start in range(0, len(scores), _QUERIES):
                part = slice(start, start + _QUERIES)
                out[part], done = weigh(self._data, scores[part], tol)
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

    def _solve(self, query: Query, topk: int) -> Answer:
        queries, levels, rows, tol = self._centred(query.x), self._levels(query.sigma), query.rows, query.tol
        batch, d = queries.shape
        prior = query.prior_of_rows
        if prior is not None:
            prior = prior.to(self._device, torch.float64)
            prior = prior if prior.stride(-1) == 1 else prior.contiguous()
        answer = Answer.empty(batch, d, topk, self._device)
        at_a_time = max(8, min(_QUERIES, _NUMBERS // d))
        with self._on():
            for start in range(0, batch, at_a_time):
                part = slice(start, start + at_a_time)
                cut = cutoff(self._data, len(rows), tol)
                bias = prior if prior is None or prior.ndim == 1 else prior[part]
                near, gap, few = self._sample(queries[part], levels[part], bias, rows, cut)
                request = Request(
                    self._data, rows.start, len(rows), queries[part], levels[part], bias, near, gap, cut, tol, topk
                )
                found = Answer.empty(len(near), d, topk, self._device)
                _answer(request, few, found)
                answer.put(torch.arange(start, start + len(near), device=self._device), found)
        self.last_paths = answer.path
        return answer

    def _sample(
        self, x: Tensor, sigma: Tensor, bias: Tensor | None, rows: range, cut: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(nearest row of an even sample, its squared distance, whether few rows seem to carry weight), [B] each.

        A wrong guess costs time, never accuracy.
        """
        count = min(_SAMPLE, len(rows))
        sample = torch.arange(count, device=self._device) * len(rows) // count  # [M]
        q = torch.arange(len(x), device=self._device).repeat_interleave(count)
        data = self._data.rows[rows.start : rows.stop]
        distances = pair_distances(x, data, q, sample.repeat(len(x))).unflatten(0, (len(x), count))
        logit = -distances / (2 * sigma.square())[:, None]
        if bias is not None:
            logit = logit + bias[..., sample]
        best = logit.argmax(1)
        top = logit.gather(1, best[:, None])
        within = ((logit >= top - cut) & ~logit.isneginf()).sum(1)
        few = (within <= 2) | (within * len(rows) // count <= _FEW)
        return sample[best], distances.gather(1, best[:, None])[:, 0], few

    def _centred(self, x: Tensor) -> Tensor:
        """x [B, d] in centred units, float64."""
        return (x.detach().to(self._device, torch.float64) * self._data.unit - self._data.shift).contiguous()

    def _levels(self, sigma: Tensor) -> Tensor:
        """sigma [B] in centred units, float64."""
        return sigma.detach().to(self._device, torch.float64) * self._data.unit

    def _on(self) -> AbstractContextManager[object]:
        """Kernels start on the current device: make it the data's."""
        return torch.cuda.device(self._device) if self._device.type == "cuda" else contextlib.nullcontext()


def _answer(request: Request, few: Tensor, answer: Answer) -> None:
    """Fills `answer`: each pass hands on what it could not answer to the contract to the next, finer one."""
    screened, open_ = _which(few)
    if len(screened):
        open_ = torch.cat([open_, _take(answer, screened, *screen(request.part(screened)))])
    digits = (DIGITS, DIGITS_FINE) if request.data.rows.dtype == torch.uint8 else (DIGITS,)
    for count in digits:
        if len(open_):
            open_ = _take(answer, open_, *dense(request.part(open_), count))
    if len(open_):
        answer.put(open_, exact(request.part(open_)))


def _take(answer: Answer, queries: Tensor, found: Answer, done: Tensor) -> Tensor:
    """Takes in the answers that are done; returns the queries whose are not."""
    known, left = _which(done)
    answer.put(queries[known], found.part(known))
    return queries[left]


def _which(flags: Tensor) -> tuple[Tensor, Tensor]:
    """Where flags are True, and where False. As numbers: every use of a mask would wait for the device once more."""
    return flags.nonzero()[:, 0], (~flags).nonzero()[:, 0]
