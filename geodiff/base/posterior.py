"""What the optimal denoiser knows about a noisy point: the posterior over the data, in summary."""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from geodiff.base.arguments import check_integer
from geodiff.base.array_like import like
from geodiff.base.dataclass_repr import by_shape


class Source(Protocol):
    """What a posterior goes back to for sums over the data that depend on more than x and sigma."""

    def covariance(self, v: Tensor) -> Tensor:
        """Cov_w v, as `Posterior.covariance`."""
        ...

    def draw(self, uniform: Tensor) -> Tensor:
        """Data indices [B, n] from numbers [B, n] in [0, 1), by the inverse of the distribution function."""
        ...


class Bounds(NamedTuple):
    """How far an answer may be off from the exact one, [B] each, float64; rounding in float64 is left aside.

    mean      of |r - exact r|
    log_prob  of |log p - exact log p|
    """

    mean: Tensor
    log_prob: Tensor


def weights_of(logits: Tensor, log_sum: Tensor) -> Tensor:
    """w = exp(l - log_sum), [B, k], of logits [B, k]: no more than 1 in a row.

    Where both are large, each is rounded to what lies far apart; weights still have their ratios then.
    """
    weights = (logits - log_sum[:, None]).exp()
    return weights / weights.sum(1, keepdim=True).clamp(min=1)


@dataclass(frozen=True, eq=False)
class Posterior:
    """w_i = softmax_i(log pi_i - |x - x_i|^2 / 2 sigma^2), the probability that x is x_i plus noise of level sigma.

    Only sums over i are kept: the N weights of a query are never stored, beyond the top k that a caller asks for.
    pi_i is 1/N unless log-weights were given.

    mean     [B, *shape]  r = sum_i w_i x_i: the optimal denoiser's output, in model space
    log_prob [B]          log p_sigma(x) = logsumexp_i(log pi_i - |x - x_i|^2 / 2 sigma^2) - (d/2) log 2 pi sigma^2
    entropy  [B]          -sum_i w_i log w_i, in nats: 0 (one point) .. log N (all alike)
    ess      [B]          1 / sum_i w_i^2, the effective number of points: 1 .. N
    indices  [B, k]       int64, the k heaviest points, heaviest first; equal weights: the lower index first
    weights  [B, k]       their weights w_i, normalised over all N points (so a row sums to at most 1)
    trace    [B]          sum_i w_i |x_i - r|^2, the trace of the posterior covariance: sigma^2 times the divergence of
                          r. None from `geodiff.reference.posterior`; `geodiff.moments.trace` has it there
    bounds                from an engine that knows how far it may be off; else None

    From `OptimalDenoiser.posterior`, mean and log_prob are differentiable in x and sigma; the rest is not.
    """

    mean: Tensor
    log_prob: Tensor
    entropy: Tensor
    ess: Tensor
    indices: Tensor
    weights: Tensor
    trace: Tensor | None = None
    source: Source | None = field(default=None, repr=False, kw_only=True)
    bounds: Bounds | None = field(default=None, repr=False, kw_only=True)

    __repr__ = by_shape

    def covariance(self, v: Tensor) -> Tensor:
        """Cov_w v = sum_i w_i <x_i - r, v> (x_i - r), [B, *shape] in the dtype of x: sigma^2 times J v.

        v  [B, *shape] floating, one direction per query. Costs one pass over the data. Differentiable in v, x, sigma.
        Raises TypeError or ValueError that names v, RuntimeError where the posterior does not know its data.
        """
        return self._known().covariance(v)

    @torch.no_grad()
    def sample(self, n: int = 1, *, generator: torch.Generator | None = None) -> Tensor:
        """n independent draws from w for every query: data indices, int64 [B, n], in the order of the data passed in.

        Exact over all N points: w is inverted at uniform numbers, which `generator` (of the CPU) makes repeatable; no
        weight is left out and none is stored. With augment="hflip", N + i is the flipped copy of point i.
        Raises TypeError or ValueError that names n, RuntimeError where the posterior does not know its data.
        """
        n = check_integer(n, "n", 0)
        source = self._known()
        uniform = torch.rand(len(self.mean), n, dtype=torch.float64, generator=generator, device="cpu")
        drawn = source.draw(uniform)
        # An array's `device` is NumPy 2's, and no place of PyTorch's.
        return drawn.to(self.mean.device) if isinstance(self.mean, Tensor) else like(drawn, self.mean)

    def _known(self) -> Source:
        if self.source is None:
            raise RuntimeError(
                "posterior: expected one that knows its data; allowed those of OptimalDenoiser.posterior"
            )
        return self.source
