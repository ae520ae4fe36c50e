"""A data set and its mirror image as one, without storing the second: the posterior of a mixture of two.

The logits of the mirrored points at x are those of the points at the mirrored x. So a query is asked twice, as it is
and mirrored, and the two answers are joined by log-sum-exp; every point and every copy carries half its weight.
Answers come stacked [2 B, ...]: first of the queries as they are, then of the mirrored ones.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from geodiff.backends import Query
from geodiff.backends.query import Direction
from geodiff.base.posterior import Posterior


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

    def merge(self, answer: Posterior, logits: Tensor, n: int) -> Posterior:
        """The posterior over points and copies, [B, ...], from that over each, [2 B, ...]; point i's copy is n + i.

        logits [2 B, k] rank the indices: the weights themselves may have underflowed.
        """
        alpha = _shares(answer.log_prob)  # [2, B]
        mean = self.back(answer.mean).unflatten(0, (2, -1))  # [2, B, d]
        entropy, ess, trace = (
            value.unflatten(0, (2, -1)) for value in (answer.entropy, answer.ess, _known(answer.trace))
        )
        indices = answer.indices.unflatten(0, (2, -1))
        indices = torch.cat([indices[0], torch.where(indices[1] < 0, -1, indices[1] + n)], 1)  # [B, 2 k]
        weights = torch.cat(list(answer.weights.unflatten(0, (2, -1)) * alpha[..., None]), 1)
        # Points come before copies, so a stable sort lets the lower index win among equals.
        order = torch.cat(list(logits.unflatten(0, (2, -1))), 1).argsort(dim=1, descending=True, stable=True)
        order = order[:, : answer.indices.shape[1]]
        return Posterior(
            mean=(alpha[..., None] * mean).sum(0),
            log_prob=answer.log_prob.unflatten(0, (2, -1)).logsumexp(0) - math.log(2),
            entropy=(alpha * entropy).sum(0) + torch.special.entr(alpha).sum(0),
            ess=1 / (alpha.square() / ess).sum(0),
            indices=indices.gather(1, order),
            weights=weights.gather(1, order),
            trace=(alpha * trace).sum(0) + alpha.prod(0) * (mean[0] - mean[1]).square().sum(1),
        )

    def merge_covariances(
        self, query: Query, direction: Direction, answer: Posterior, found: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Cov(c, x_i) and Cov(c, |x - x_i|^2) over points and copies, by the law of total covariance.

        query, direction  [B, ...], as asked
        answer, found     [2 B, ...]: posteriors, and covariances as of `Engine.covariance`, of query and mirror image
        """
        with_rows, with_distance = found
        alpha = _shares(answer.log_prob)
        mean = self.back(answer.mean).unflatten(0, (2, -1))
        # [2, B] E |x - x_i|^2
        far = _known(answer.trace).unflatten(0, (2, -1)) + (mean - query.x.double()).square().sum(2)
        gap, gap_far = mean[1] - mean[0], far[1] - far[0]
        gap_c = (gap * direction.v).sum(1) + direction.slope * gap_far
        between = alpha.prod(0) * gap_c
        rows = (alpha[..., None] * self.back(with_rows).unflatten(0, (2, -1))).sum(0) + between[:, None] * gap
        return rows, (alpha * with_distance.unflatten(0, (2, -1))).sum(0) + between * gap_far

    def split_draws(self, log_prob: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Which of the numbers uniform [B, n] fall to the copies, bool [B, n]; and the numbers left over, [2 B, n]."""
        points, copies = _shares(log_prob)[..., None].to(uniform.device)
        copied = uniform >= points
        below = (uniform / points).clamp(max=_BELOW_ONE)
        above = ((uniform - points) / copies).clamp(0, _BELOW_ONE)
        # 0/0 where a share underflowed: it is not asked
        return copied, torch.cat([below, above]).nan_to_num(0, 0, 0)


def _shares(log_prob: Tensor) -> Tensor:
    """alpha [2, B]: the posterior probability of the points and of their copies, from log_prob [2 B]."""
    return log_prob.unflatten(0, (2, -1)).softmax(0)


def _known(trace: Tensor | None) -> Tensor:
    assert trace is not None, "the answers of PointSet hold a trace"
    return trace


_BELOW_ONE = 1 - 2.0**-53
