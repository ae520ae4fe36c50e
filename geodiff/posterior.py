"""What the optimal denoiser knows about a noisy point: the posterior over the data, in summary."""

from dataclasses import dataclass

from torch import Tensor


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
    """

    mean: Tensor
    log_prob: Tensor
    entropy: Tensor
    ess: Tensor
    indices: Tensor
    weights: Tensor
