"""Products with the posterior covariance, which is sigma^2 times the Jacobian of the optimal denoiser."""

import torch
from torch import Tensor

from geodiff import reference
from geodiff.arguments import check_query, check_sigma
from geodiff.reference import model_space

_TILE = 2**22  # the most numbers of the data that are held in float64 at a time


class PosteriorCovariance:
    """Cov_w v = sum_i w_i (x_i - r) <x_i - r, v>, w_i = softmax_i(-|x - x_i|^2 / 2 sigma^2), r = sum_i w_i x_i.

    x      [B, *shape] float32 or float64; data [N, *shape] as in `geodiff.reference.posterior`; sigma as elsewhere

    The Jacobian of the optimal denoiser is Cov_w / sigma^2, symmetric and positive semi-definite. Weights are worked
    out once, in float64, and kept: B N numbers. The d x d matrix is never formed. Raises as the reference does.
    """

    def __init__(self, data: Tensor, x: Tensor, sigma: float | Tensor) -> None:
        x = check_query(x, data.shape[1:])
        self.sigma = check_sigma(sigma, len(x), device=x.device)
        answer = reference.posterior(x.double(), data, self.sigma, topk=len(data))
        weights = torch.empty_like(answer.weights).scatter_(1, answer.indices, answer.weights)  # [B, N]
        self._active = (weights > 0).any(0).nonzero()[:, 0]  # at small sigma almost none
        self._weights = weights[:, self._active]
        self._data = data
        self.mean = answer.mean  # [B, *shape] float64

    def __call__(self, v: Tensor) -> Tensor:
        """Cov_w v, [B, *shape] float64, for one vector v [B, *shape] for each query."""
        if v.shape != self.mean.shape:
            raise ValueError(
                f"v: expected shape {list(self.mean.shape)}, found {list(v.shape)}; allowed one vector for each query"
            )
        vectors, mean = v.flatten(1).double(), self.mean.flatten(1)
        product, total = torch.zeros_like(mean), mean.new_zeros(len(mean), 1)
        centre = (mean * vectors).sum(1, keepdim=True)  # <r, v>
        rows = max(1, _TILE // max(1, mean.shape[1]))
        for chosen, weights in zip(self._active.split(rows), self._weights.split(rows, dim=1), strict=True):
            points = model_space(self._data[chosen], torch.float64).flatten(1)  # [n, d]
            pulls = weights * (vectors @ points.T - centre)  # [B, n], centred before it is summed: nothing cancels
            product += pulls @ points
            total += pulls.sum(1, keepdim=True)
        return (product - total * mean).reshape(v.shape)


def covariance_product(data: Tensor, x: Tensor, sigma: float | Tensor, v: Tensor) -> Tensor:
    """Cov_w(x; sigma) v, [B, *shape] float64: one product with `PosteriorCovariance`, for all arguments see there."""
    return PosteriorCovariance(data, x, sigma)(v)
