"""The optimal denoiser, or any other of this package, as a denoiser of azula (needs the package azula)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from azula.denoise import Denoiser, DiracPosterior
from azula.noise import Schedule
from torch import Tensor

from geodiff.base.per_point import per_point


class AzulaDenoiser(Denoiser):  # type: ignore[misc]  # azula is untyped
    """E[X | x_t] = r(x_t / alpha_t; sigma_t / alpha_t) for azula's p(x_t | x) = N(alpha_t x, sigma_t^2 I).

    denoiser  r(x [B, *shape], sigma [B], **kwargs) -> [B, *shape]; where it tells `shape`, azula's batches may have any
              number of dimensions, none included
    schedule  any of `azula.noise`: t in [0, 1] -> (alpha_t, sigma_t)
    """

    def __init__(self, denoiser: Callable[..., Tensor], schedule: Schedule) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.schedule = schedule

    def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> DiracPosterior:
        """A posterior whose mean is [*batch, *shape] in the dtype of x_t. t: 0-d, [*batch] or what broadcasts to it.

        kwargs go to the denoiser; tensors among them that begin as the batch does (class labels) are flat, too.
        """
        shape = getattr(self.denoiser, "shape", x_t.shape[1:])
        batch = x_t.shape[: x_t.ndim - len(shape)]
        alpha, sigma = (_each(scale.double(), batch) for scale in self.schedule(t))
        points = x_t.reshape(-1, *shape)
        x = points / per_point(alpha.to(x_t.dtype), points)
        flat = {name: _flat(value, batch) for name, value in kwargs.items()}
        return DiracPosterior(mean=self.denoiser(x, sigma / alpha, **flat).reshape(x_t.shape))


def _each(scale: Tensor, batch: Sequence[int]) -> Tensor:
    """alpha or sigma, one for each point of the batch: [B]."""
    if scale.numel() == math.prod(batch):  # [*batch], and [*batch, 1, ...], as code for images passes it
        return scale.reshape(-1)
    return (scale.reshape(()) if scale.numel() == 1 else scale).expand(batch).reshape(-1)


def _flat(value: Any, batch: Sequence[int]) -> Any:
    batched = isinstance(value, Tensor) and len(batch) > 0 and value.shape[: len(batch)] == tuple(batch)
    return value.reshape(-1, *value.shape[len(batch) :]) if batched else value
