"""What is asked of an engine: queries, their noise levels, and the rows that they see."""

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from geodiff.reference.contract import LOG_TOL

#: A tol so small that every engine computes in float64 throughout.
FLOAT64 = 1e-12


@dataclass(frozen=True, eq=False, slots=True)
class Query:
    """Queries x against a range of rows: w_i = softmax_i(log pi_i - |x - x_i|^2 / 2 sigma^2), i in `rows`.

    x          [B, d] in model space, flat in storage order
    sigma      [B] float64
    rows       the rows that are seen, as a range
    log_prior  log pi, float64 [N] or [B, N], for all rows and normalised over `rows`; None: one over their number
    tol        relative error allowed in the mean: contract 1
    exclude    int64 [B], the row that each query must not see, -1 for none; None: all see all of `rows`. It is as if
               the row were not there: pi is what `log_prior` says, normalised over those that are left
    log_tol    absolute error allowed in log_prob, beside a relative 1e-6; less than LOG_TOL where answers are merged
    """

    x: Tensor
    sigma: Tensor
    rows: range
    log_prior: Tensor | None = None
    tol: float = 1e-5
    exclude: Tensor | None = None
    log_tol: float = LOG_TOL

    def __len__(self) -> int:
        """B, the number of queries."""
        return self.x.shape[0]

    def picked(self, which: Tensor) -> Self:
        """The same question for some of the queries, int64 [b]."""
        prior = self.log_prior if self.log_prior is None or self.log_prior.ndim == 1 else self.log_prior[which]
        exclude = None if self.exclude is None else self.exclude[which.to(self.exclude.device)]
        x, sigma = self.x[which], self.sigma[which.to(self.sigma.device)]
        return replace(self, x=x, sigma=sigma, log_prior=prior, exclude=exclude)

    @property
    def prior_of_rows(self) -> Tensor | None:
        """log pi of the rows that are seen, [n] or [B, n], `exclude` left aside."""
        return None if self.log_prior is None else self.log_prior[..., self.rows.start : self.rows.stop]

    @property
    def excluded_of_rows(self) -> Tensor | None:
        """`exclude` counted from the first row that is seen."""
        return None if self.exclude is None else torch.where(self.exclude < 0, -1, self.exclude - self.rows.start)

    @property
    def log_mass(self) -> float | Tensor:
        """log sum_i exp(log_prior_i) over the rows that each query sees, 0 standing for a prior of None.

        What the logarithm of a sum over weights is to be lessened by, for a normalised pi: a number, or [B].
        """
        prior, exclude = self.prior_of_rows, self.excluded_of_rows
        if exclude is None:
            return math.log(len(self.rows)) if prior is None else 0.0
        if prior is None:
            return (len(self.rows) - (exclude >= 0).double()).log()
        return torch.where(exclude >= 0, log_left(prior, exclude), 0.0)

    @property
    def log_normaliser(self) -> Tensor:
        """d (log sigma + log sqrt(2 pi)) + `log_mass`, [B]: what log p is below the logarithm of the sum over rows."""
        return self.x.shape[1] * (self.sigma.log() + 0.5 * math.log(2 * math.pi)) + self.log_mass

    def seen(self, stored: Tensor) -> Tensor:
        """The rows that are seen, of all rows [N, d] as stored: a view."""
        return stored[self.rows.start : self.rows.stop]

    def with_exclude_as_prior(self, n: int) -> Self:
        """The same question in other words: the excluded row of n has prior weight 0, in a prior for each query."""
        if self.exclude is None:
            return self
        exclude = self.exclude.to(self.x.device)
        prior = self.log_prior
        if prior is None:
            prior = self.x.new_full((n,), -math.log(len(self.rows)), dtype=torch.float64)
        prior = prior.expand(len(self), n).clone()
        chosen = (exclude >= 0).nonzero()[:, 0]
        prior[chosen, exclude[chosen]] = -torch.inf
        seen = prior[:, self.rows.start : self.rows.stop]
        return replace(self, log_prior=prior - seen.logsumexp(1, keepdim=True), exclude=None)


@dataclass(frozen=True, eq=False, slots=True)
class Direction:
    """What a covariance is taken with: c_i = <x_i - r, v> + slope |x - x_i|^2, for every query.

    mean [B, d] is r, v [B, d], slope [B], all float64
    """

    mean: Tensor
    v: Tensor
    slope: Tensor


def log_left(log_prior: Tensor, exclude: Tensor) -> Tensor:
    """log(1 - pi_j), j = exclude [B] >= -1, of the rows that are seen, over which log pi [n] is normalised.

    [B] float64, -inf where nothing is left. Other rows' weights have no part in it.
    """
    chosen = log_prior[exclude.clamp(min=0)]
    left = torch.log1p(-chosen.exp())
    # 1 - pi_j cancels where pi_j is nearly all: there the rest is summed up.
    for b in (chosen > math.log(0.5)).nonzero()[:, 0].tolist():
        rest = log_prior.index_fill(0, exclude[b : b + 1].clamp(min=0).to(log_prior.device), -torch.inf)
        left[b] = rest.logsumexp(0)
    return left
