"""What a backend must offer: one class that holds prepared rows and answers batches of queries."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from geodiff import moments
from geodiff.posterior import Posterior

#: A factor and what it multiplies.
Term = tuple[float, Tensor]


class Combination(NamedTuple):
    """out = gain r + sum_k c_k v_k for terms (c_k, v_k), all [B, d]; out may be the queries or one of the v_k."""

    gain: float
    terms: Sequence[Term]
    out: Tensor

    def take(self, mean: Tensor) -> None:
        """Writes `out`, given r in float64, which is used up."""
        mean.mul_(self.gain)
        for factor, values in self.terms:
            mean.add_(values, alpha=factor)
        self.out.copy_(mean)

    def lies_right(self, *others: Tensor) -> bool:
        """Whether a kernel can write it where all is: of one precision, on one device, row after row."""
        out = self.out
        return out.dtype in (torch.float32, torch.float64) and all(
            one.dtype == out.dtype and one.device == out.device and one.is_contiguous()
            for one in (out, *others, *(values for _, values in self.terms))
        )


class Engine(ABC):
    """A data set made ready for one backend. Rows are [N, d] as stored; queries [B, d] in model space.

    log_prior is float64 [N] or [B, N], for all rows of the data set and normalised over the range that is asked for;
    None means one over the length of the range.
    """

    #: [d] float64: the mean of the data in model space, the limit of r for sigma to infinity
    mean: Tensor
    #: whether `posterior` never waits for the device, so that it can be recorded into a CUDA graph
    capturable = False
    #: whether `combine` raises ValueError by itself for an x with NaN or Inf
    checks_queries = False

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    @abstractmethod
    def posterior(
        self, x: Tensor, sigma: Tensor, *, topk: int, tol: float, log_prior: Tensor | None, rows: range
    ) -> Posterior:
        """Queries x [B, d] at levels sigma [B] float64 against the given range of rows, to contract 1 at `tol`.

        `indices` count from row 0 of the data.
        """

    def combine(
        self, x: Tensor, sigma: Tensor, into: Combination, *, tol: float, log_prior: Tensor | None, rows: range
    ) -> None:
        """Writes `into`, r being the mean of `posterior`."""
        into.take(self.posterior(x, sigma, topk=0, tol=tol, log_prior=log_prior, rows=rows).mean)

    def trace(self, x: Tensor, sigma: Tensor, answer: Posterior, *, log_prior: Tensor | None, rows: range) -> Tensor:
        """E_w |x_i - r|^2, [B] float64, for the answer of `posterior` to the same arguments."""
        if answer.trace is not None:
            return answer.trace
        if log_prior is None:  # then entropy = log N + E|x - x_i|^2 / 2 sigma^2 + logsumexp of the logits
            log_sum = answer.log_prob + x.shape[1] * (sigma.log() + 0.5 * math.log(2 * math.pi))
            far = 2 * sigma.square() * (answer.entropy - math.log(len(rows)) - log_sum)
            return (far - (x - answer.mean).square().sum(1)).clamp(min=0)
        part, prior = self._range(log_prior, rows)
        return moments.trace(x.double(), part, sigma, log_weights=prior)

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
        """Cov_w(c, x_i) [B, d] and Cov_w(c, |x - x_i|^2) [B], float64, c_i = <x_i - r, v> + slope |x - x_i|^2.

        mean [B, d] is r, v [B, d], slope [B] float64. A backend without a kernel for it answers in plain torch.
        """
        part, prior = self._range(log_prior, rows)
        return moments.covariance(x.double(), part, sigma, v.double(), slope, log_weights=prior)

    def draw(self, x: Tensor, sigma: Tensor, uniform: Tensor, *, log_prior: Tensor | None, rows: range) -> Tensor:
        """Rows [B, n] int64, counted from row 0 of the data: the weights' distribution function inverted at `uniform`.

        uniform [B, n] float64 in [0, 1). A backend without a kernel for it answers in plain torch.
        """
        part, prior = self._range(log_prior, rows)
        return moments.draw(x.double(), part, sigma, uniform, log_weights=prior) + rows.start

    def _range(self, log_prior: Tensor | None, rows: range) -> tuple[Tensor, Tensor | None]:
        part = slice(rows.start, rows.stop)
        return self.rows[part], None if log_prior is None else log_prior[..., part]

    @abstractmethod
    def inner_products(self, x: Tensor) -> Tensor:
        """<x_q, x_i>, [B, N] float64, for x [B, d]."""

    @abstractmethod
    def weighted_mean(self, logits: Tensor, tol: float) -> Tensor:
        """sum_i softmax_i(l_q) x_i, [B, d] float64, for logits [B, N], to contract 1 at `tol`."""

    @abstractmethod
    def squared_distances(self, x: Tensor, candidates: Tensor) -> Tensor:
        """|x_q - x_c|^2, [B, C] float64, for x [B, d] and rows c = candidates [B, C] int64; infinity where c < 0."""
