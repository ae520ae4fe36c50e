"""Which rows can still matter once a state has moved: the twin of csrc/cpu/passes/memory.cpp, one query at a time.

Where a query x was evaluated at sigma, all rows but those of a list have |x - x_i|^2 / 2 - sigma^2 log pi_i >= floor.
By the triangle inequality that bounds their logits wherever the query is next, whoever moved it: docs/trajectories.md.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

#: Rows further below the best than so many cuts are forgotten.
KEPT = 3.0


class Anchor(NamedTuple):
    """rows [k] int64, rising: the list; x [d] float64 and sigma: where it was made; floor: of all other rows."""

    rows: Tensor
    x: Tensor
    sigma: float
    floor: float

    def most(self, moved: float, level: float, least: float = 0.0, most: float = 0.0) -> float:
        """The largest logit that another row can have at `level`, `moved` from x; least, most of the log priors."""
        if math.isinf(self.floor):
            return -math.inf

        def reach(log_prior: float) -> float:
            return math.sqrt(max(0.0, 2 * (self.floor + self.sigma**2 * log_prior)))

        def logit(far: float, log_prior: float) -> float:
            return log_prior - 0.5 * (max(0.0, far - moved) / level) ** 2

        least = min(max(-self.floor / self.sigma**2, least), most)
        nearest, farthest = reach(least), reach(most)
        found = [logit(nearest, least), logit(farthest, most)]
        if level < self.sigma:
            peak = moved / (1 - (level / self.sigma) ** 2)
            if nearest < peak < farthest:
                found.append(logit(peak, (0.5 * peak**2 - self.floor) / self.sigma**2))
        return max(found)


def keep(x: Tensor, sigma: float, logits: Tensor, width: float) -> Anchor:
    """The rows whose logits [N] are less than `width` below the largest."""
    inside = logits >= logits.max() - width
    floor = -(sigma**2) * float(logits[~inside].max()) if bool((~inside).any()) else math.inf
    return Anchor(inside.nonzero()[:, 0], x, sigma, floor)


def recall(
    anchor: Anchor, x: Tensor, sigma: float, data: Tensor, log_prior: Tensor | None, cut: float
) -> tuple[Tensor, Anchor] | None:
    """r(x; sigma) from the anchor's rows alone, and what is to be remembered then; None where that does not suffice.

    data [N, d] float64; log_prior [N]; rows further than `cut` below the largest logit count for nothing
    """
    logits = logits_of(x, sigma, data, log_prior)[anchor.rows]
    seen = torch.zeros(1, device="cpu") if log_prior is None else log_prior[log_prior.isfinite()]
    others = anchor.most(float((x - anchor.x).norm()), sigma, float(seen.min()), float(seen.max()))
    best = float(logits.max())
    if not others <= best - cut:
        return None
    r = logits.where(logits >= best - cut, -torch.inf).softmax(0) @ data[anchor.rows]
    inside = logits >= max(others, best - KEPT * cut)
    if bool(inside.all()):
        return r, anchor
    others = max(others, float(logits[~inside].max()))
    return r, Anchor(anchor.rows[inside], x, sigma, -(sigma**2) * others)


def logits_of(x: Tensor, sigma: float, data: Tensor, log_prior: Tensor | None) -> Tensor:
    """-|x - x_i|^2 / 2 sigma^2 + log pi_i, [N]."""
    found = -(x - data).square().sum(1) / (2 * sigma**2)
    return found if log_prior is None else found + log_prior
