"""The pure-torch reference as a backend: float64, any device that has it, slow and plain."""

import torch
from torch import Tensor

from geodiff import reference
from geodiff.arguments import check_finite
from geodiff.backends.engine import Engine
from geodiff.posterior import Posterior


class ReferenceEngine(Engine):
    """Answers with `geodiff.reference.posterior` in float64."""

    def __init__(self, rows: Tensor) -> None:
        """rows [N, d]. Raises ValueError if it holds NaN or Inf."""
        self._rows = rows
        total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
        for start in range(0, len(rows), _CHUNK):
            part = reference.model_space(rows[start : start + _CHUNK], torch.float64)
            check_finite(part, "data", first_row=start)
            total += part.sum(0)
        self.mean = total / len(rows)

    def posterior(
        self, x: Tensor, sigma: Tensor, *, topk: int, tol: float, log_prior: Tensor | None, rows: range
    ) -> Posterior:
        part = slice(rows.start, rows.stop)
        prior = None if log_prior is None else log_prior[part]
        found = reference.posterior(x.double(), self._rows[part], sigma, topk=topk, log_weights=prior)
        return Posterior(
            found.mean, found.log_prob, found.entropy, found.ess, found.indices + rows.start, found.weights
        )


_CHUNK = 1024
