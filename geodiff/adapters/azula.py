"""The optimal denoiser, or any other of this package, as a denoiser of azula (needs the package azula)."""

from collections.abc import Callable
from typing import Any

from azula.denoise import Denoiser, DiracPosterior
from azula.noise import Schedule
from torch import Tensor


class AzulaDenoiser(Denoiser):  # type: ignore[misc]  # azula is untyped
    """E[X | x_t] = r(x_t / alpha_t; sigma_t / alpha_t) for azula's p(x_t | x) = N(alpha_t x, sigma_t^2 I).

    denoiser  r(x [B, *shape], sigma 0-d or [B], **kwargs) -> [B, *shape]
    schedule  any of `azula.noise`: t in [0, 1] -> (alpha_t, sigma_t)
    """

    def __init__(self, denoiser: Callable[..., Tensor], schedule: Schedule) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.schedule = schedule

    def forward(self, x_t: Tensor, t: Tensor, **kwargs: Any) -> DiracPosterior:
        """A posterior whose mean is [B, *shape] in the dtype of x_t. t: 0-d or [B]; kwargs go to the denoiser."""
        alpha, sigma = (scale.double() for scale in self.schedule(t))
        wide = alpha.to(x_t.dtype).reshape(-1, *[1] * (x_t.ndim - 1))
        return DiracPosterior(mean=self.denoiser(x_t / wide, sigma / alpha, **kwargs))
