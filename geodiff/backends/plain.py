"""The pure-torch reference as a backend: float64, any device that has it, slow and plain."""

import dataclasses

import torch
from torch import Tensor

from geodiff import reference
from geodiff.backends.engine import Engine
from geodiff.backends.query import Query
from geodiff.base.arguments import check_finite
from geodiff.base.posterior import Bounds, Posterior


class PlainEngine(Engine):
    """Answers with `geodiff.reference.posterior` in float64."""

    excludes = True
    bounds_errors = True

    def __init__(self, rows: Tensor) -> None:
        """rows [N, d]. Raises ValueError if it holds NaN or Inf."""
        super().__init__(rows)
        total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
        for start in range(0, len(rows), _CHUNK):
            part = reference.model_space(rows[start : start + _CHUNK], torch.float64)
            check_finite(part, "data", first_row=start)
            total += part.sum(0)
        self.mean = total / len(rows)

    def posterior(self, query: Query, topk: int = 0) -> Posterior:
        seen, prior, exclude = query.seen(self.rows), query.prior_of_rows, query.excluded_of_rows
        x, sigma = query.x.double(), query.sigma
        if prior is None or prior.ndim == 1:
            found = reference.posterior(x, seen, sigma, topk=topk, log_weights=prior, exclude=exclude)
        else:  # a prior of its own for every query
            alone = [
                reference.posterior(x[b : b + 1], seen, sigma[b], topk=topk, log_weights=prior[b])
                for b in range(len(x))
            ]
            found = Posterior(*(torch.cat([getattr(one, name) for one in alone]) for name in _FIELDS))
        indices = torch.where(found.indices < 0, -1, found.indices + query.rows.start)
        exact = Bounds(*torch.zeros(2, len(x), dtype=torch.float64, device=x.device))
        return dataclasses.replace(found, indices=indices, bounds=exact)

    def inner_products(self, x: Tensor) -> Tensor:
        parts = [x.double() @ reference.model_space(rows, torch.float64).T for rows in self.rows.split(_CHUNK)]
        return torch.cat(parts, dim=1)

    def weighted_mean(self, logits: Tensor, tol: float) -> Tensor:
        weights = logits.double().softmax(1).split(_CHUNK, dim=1)
        parts = zip(weights, self.rows.split(_CHUNK), strict=True)
        return sum((w @ reference.model_space(rows, torch.float64) for w, rows in parts), torch.zeros(()))

    def squared_distances(self, x: Tensor, candidates: Tensor) -> Tensor:
        out = torch.full(candidates.shape, torch.inf, dtype=torch.float64, device=x.device)
        for found, query, rows in zip(out, x.double(), candidates, strict=True):
            points = reference.model_space(self.rows[rows.clamp_min(0)], torch.float64)
            found[rows >= 0] = (query - points).square().sum(1)[rows >= 0]
        return out


_CHUNK = 1024
_FIELDS = ("mean", "log_prob", "entropy", "ess", "indices", "weights")
