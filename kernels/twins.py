"""The kernels again, in plain torch and float64, as the formulas read: what they are tested against."""

from collections.abc import Sequence

import torch
from torch import Tensor

from geodiff.kernels.prepared import centred
from geodiff.kernels.seen import Seen


def logits(x: Tensor, rows: Tensor, half: Tensor, seen: Seen, inv: Tensor) -> Tensor:
    """(<x_b, v_i> - half_i) inv_b + bias_i, [B, C], for x [B, d] float64; -inf for a row that a query does not see."""
    found = (x @ centred(rows).T - half) * inv[:, None]
    if seen.exclude is not None:
        place = torch.arange(len(rows), device=x.device) + seen.start
        found = found.masked_fill(place == seen.exclude[:, None], -torch.inf)
    return found if seen.bias is None else found + seen.bias


def softmax_state(logits: Tensor, half: Tensor, bias: Tensor | None = None) -> Tensor:
    """[6, B]: m = max l; sums of p = exp(l - m), p (l - m), p^2, p h and p c, c the bias."""
    scores = logits.double()
    m = scores.amax(1, keepdim=True)
    below = torch.where(torch.isneginf(scores), -torch.inf, scores - m)
    p = below.exp()
    first_moment = (p * below.nan_to_num(neginf=0)).sum(1)
    share = torch.zeros_like(p) if bias is None else (p * bias).masked_fill(p == 0, 0)
    return torch.stack([m[:, 0], p.sum(1), first_moment, p.square().sum(1), (p * half).sum(1), share.sum(1)])


def weighted_mean(logits: Tensor, rows: Tensor) -> Tensor:
    """sum_i softmax(l)_i v_i, [B, d]."""
    return logits.double().softmax(1) @ centred(rows)


def distances(x: Tensor, rows: Tensor) -> Tensor:
    """|x_b - v_i|^2, [B, C]."""
    return (x[:, None] - centred(rows)).square().sum(2)


def combine(mean: Tensor, gain: float, terms: Sequence[tuple[float, Tensor]]) -> Tensor:
    """gain mean + sum_k c_k v_k, [B, d] float64."""
    return gain * mean + sum(factor * values.double() for factor, values in terms)
