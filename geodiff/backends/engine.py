"""What a backend must offer: one class that holds prepared rows and answers batches of queries."""

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from geodiff.backends.combination import Combination
from geodiff.backends.cost import Cost
from geodiff.backends.query import FLOAT64, Direction, Query
from geodiff.base.posterior import Bounds, Posterior
from geodiff.reference import moments
from geodiff.reference.contract import LOG_TOL, largest_norm, least_scale


class Engine(ABC):
    """A data set made ready for one backend: rows [N, d] as stored, queries [B, d] in model space."""

    #: [d] float64: the mean of the data in model space, the limit of r for sigma to infinity
    mean: Tensor
    #: whether `posterior` never waits for the device, so that it can be recorded into a CUDA graph
    capturable = False
    #: whether `posterior` bounds its errors and keeps `Query.log_tol`; others keep contract 1, or float64 for `FLOAT64`
    bounds_errors = False
    #: whether `combine` raises ValueError by itself for an x with NaN or Inf, or a sigma out of range
    checks_queries = False
    #: whether it looks at `Query.exclude`; others are asked with a prior that leaves the row out
    excludes = False

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    @cached_property
    def reach(self) -> float:
        """max_i |x_i| in model space: contract 1 measures a small r against a hundredth of it. Takes a pass."""
        return largest_norm(self.rows)

    def prepare(self) -> None:  # noqa: B027  as a rule there is nothing to do
        """Makes now what the first large call would make of the data."""

    @abstractmethod
    def posterior(self, query: Query, topk: int = 0) -> Posterior:
        """The posterior over the rows that each query sees, to contract 1; `indices` count from row 0 of the data.

        With `bounds` where `bounds_errors`; a trace where it costs nothing more.
        """

    def memory(self, batch: int) -> object:
        """Where calls of `combine` for the same `batch` queries, as they move, leave what they found; None: nowhere."""
        return None

    def combine(self, query: Query, into: Combination, memory: object = None) -> Cost:
        """Writes `into`, r being the mean of `posterior`, and says what it took, without a wait for the device.

        memory: of this engine, of calls for the same queries with the same rows, log_prior and exclude; without one an
        engine may leave the cost UNTOLD: to find it out takes longer than the rest of a short call's Python
        """
        into.write(self.posterior(query).mean)
        return Cost({"posterior": len(query)})

    def bounds(self, query: Query, answer: Posterior) -> Bounds:
        """How far `posterior` may be off in its answer to that query: as it says, or as contract 1 allows."""
        if answer.bounds is not None:
            return answer.bounds
        mean = query.tol * answer.mean.norm(dim=1).clamp(min=least_scale(self.reach))
        return Bounds(mean, torch.full_like(mean, LOG_TOL if query.tol > FLOAT64 else FLOAT64))

    def trace(self, query: Query, answer: Posterior) -> Tensor:
        """E_w |x_i - r|^2, [B] float64, for the answer of `posterior` to the same query."""
        if answer.trace is not None:
            return answer.trace
        x, sigma = query.x, query.sigma
        if query.log_prior is None:  # then entropy = log n + E|x - x_i|^2 / 2 sigma^2 + logsumexp of the logits
            far = 2 * sigma.square() * (answer.entropy - answer.log_prob - query.log_normaliser)
            return (far - (x - answer.mean).square().sum(1)).clamp(min=0)
        return moments.trace(x.double(), query.seen(self.rows), sigma, **_conditions(query))

    def covariance(self, query: Query, direction: Direction) -> tuple[Tensor, Tensor]:
        """Cov_w(c, x_i) [B, d] and Cov_w(c, |x - x_i|^2) [B], float64, with c as `Direction` says.

        A backend without a kernel for it answers in plain torch.
        """
        return moments.covariance(
            query.x.double(),
            query.seen(self.rows),
            query.sigma,
            moments.Along(direction.v.double(), direction.slope),
            **_conditions(query),
        )

    def draw(self, query: Query, uniform: Tensor) -> Tensor:
        """Rows [B, n] int64, counted from row 0 of the data: the weights' distribution function inverted at `uniform`.

        uniform [B, n] float64 in [0, 1). A backend without a kernel for it answers in plain torch.
        """
        rows = query.seen(self.rows)
        return moments.draw(query.x.double(), rows, query.sigma, uniform, **_conditions(query)) + query.rows.start

    @abstractmethod
    def inner_products(self, x: Tensor) -> Tensor:
        """<x_q, x_i>, [B, N] float64, for x [B, d]."""

    @abstractmethod
    def weighted_mean(self, logits: Tensor, tol: float) -> Tensor:
        """sum_i softmax_i(l_q) x_i, [B, d] float64, for logits [B, N], to contract 1 at `tol`."""

    @abstractmethod
    def squared_distances(self, x: Tensor, candidates: Tensor) -> Tensor:
        """|x_q - x_c|^2, [B, C] float64, for x [B, d] and rows c = candidates [B, C] int64; infinity where c < 0."""


def _conditions(query: Query) -> dict[str, Tensor | None]:
    """Whom a query sees, as the functions of `moments` take it."""
    return {"log_weights": query.prior_of_rows, "exclude": query.excluded_of_rows}
