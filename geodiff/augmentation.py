"""A data set and its mirror image as one, without storing the second: the posterior of a mixture of two.

The logits of the mirrored points at x are those of the points at the mirrored x. So a query is asked twice, as it is
and mirrored, and the two answers are joined by log-sum-exp; every point and every copy carries half its weight.
Answers come stacked [2 B, ...]: first of the queries as they are, then of the mirrored ones, mirrored back.
"""

import math

import torch
from torch import Tensor

from geodiff.posterior import Posterior


def shares(log_prob: Tensor) -> Tensor:
    """alpha [2, B]: the posterior probability of the points and of their copies, from log_prob [2 B]."""
    return log_prob.unflatten(0, (2, -1)).softmax(0)


def merge(answer: Posterior, logits: Tensor, n: int) -> Posterior:
    """The posterior over points and copies, [B, ...], from that over each, [2 B, ...]; the copy of point i is n + i.

    logits [2 B, k] rank the indices: the weights themselves may have underflowed.
    """
    alpha = shares(answer.log_prob)  # [2, B]
    mean = answer.mean.unflatten(0, (2, -1))  # [2, B, d]
    entropy, ess, trace = (value.unflatten(0, (2, -1)) for value in (answer.entropy, answer.ess, _known(answer.trace)))
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
    x: Tensor, v: Tensor, slope: Tensor, answer: Posterior, with_rows: Tensor, with_distance: Tensor
) -> tuple[Tensor, Tensor]:
    """Cov(c, x_i) and Cov(c, |x - x_i|^2) over points and copies, by the law of total covariance.

    x, v [B, d], slope [B] as in `Engine.covariance`; with_rows [2 B, d] and with_distance [2 B] its answers.
    """
    alpha = shares(answer.log_prob)
    mean = answer.mean.unflatten(0, (2, -1))
    far = _known(answer.trace).unflatten(0, (2, -1)) + (mean - x).square().sum(2)  # [2, B] E |x - x_i|^2
    gap, gap_far = mean[1] - mean[0], far[1] - far[0]
    gap_c = (gap * v).sum(1) + slope * gap_far
    between = alpha.prod(0) * gap_c
    rows = (alpha[..., None] * with_rows.unflatten(0, (2, -1))).sum(0) + between[:, None] * gap
    return rows, (alpha * with_distance.unflatten(0, (2, -1))).sum(0) + between * gap_far


def split_draws(log_prob: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Which of the numbers uniform [B, n] fall to the copies, bool [B, n]; and the numbers left over, [2 B, n]."""
    points, copies = shares(log_prob)[..., None].to(uniform.device)
    copied = uniform >= points
    below = (uniform / points).clamp(max=_BELOW_ONE)
    above = ((uniform - points) / copies).clamp(0, _BELOW_ONE)
    return copied, torch.cat([below, above]).nan_to_num(0, 0, 0)  # 0/0 where a share underflowed: it is not asked


def _known(trace: Tensor | None) -> Tensor:
    assert trace is not None, "the answers of Prepared hold a trace"
    return trace


_BELOW_ONE = 1 - 2.0**-53
