"""A data set and its mirror image as one, without storing the second: the posterior of a mixture of two.

The logits of the mirrored points at x are those of the points at the mirrored x. So a query is asked twice, as it is
and mirrored, and the two answers are joined by log-sum-exp (merging.py); every point and every copy carries half its
weight. Answers come stacked [2 B, ...]: first of the queries as they are, then of the mirrored ones.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from geodiff.backends import Query


@dataclass(frozen=True, eq=False)
class Mirror:
    """flip [d]: the order that mirrors a flat point."""

    flip: Tensor

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        return type(self)(self.flip.to(device))

    def mean(self, mean: Tensor) -> Tensor:
        """The mean of points and copies, [d], from that of the points."""
        return (mean + mean[self.flip.to(mean.device)]) / 2

    def twice(self, values: Tensor) -> Tensor:
        """[B, d] as it is, and mirrored behind it."""
        return torch.cat([values, values[:, self.flip]])

    def both(self, query: Query) -> Query:
        """The queries, and their mirror images behind them: [2 B, ...]."""
        prior = query.log_prior
        if prior is not None and prior.ndim == 2:
            prior = prior.repeat(2, 1)
        exclude = None if query.exclude is None else query.exclude.repeat(2)
        return replace(query, x=self.twice(query.x), sigma=query.sigma.repeat(2), log_prior=prior, exclude=exclude)

    def back(self, values: Tensor) -> Tensor:
        """[2 B, d], the second half mirrored back."""
        as_is, mirrored = values.unflatten(0, (2, -1))
        return torch.cat([as_is, mirrored[:, self.flip]])
