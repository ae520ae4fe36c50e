"""The probability-flow ODE as a right side for general solvers, such as torchdiffeq's odeint."""

from collections.abc import Callable

import torch
from torch import Tensor

from geodiff.base.denoiser_type import Denoiser


def probability_flow(denoiser: Denoiser) -> Callable[[Tensor, Tensor], Tensor]:
    """dx / d ln(sigma) = x - r(x; sigma), as f(log_sigma, x): what `odeint(f, noise, sigmas.log())` solves.

    The same flow as dx/dsigma = (x - r) / sigma. In ln(sigma) because adaptive solvers step beyond the end of the
    interval and interpolate back: near sigma = 0.002 that would be a sigma below 0, where there is no denoiser, while
    in ln(sigma) it is just less noise. Stop at a sigma_min > 0 and jump: denoiser(x, sigma_min).

    denoiser  r(x, sigma) -> [B, *shape], sigma a 0-d float64 tensor on x's device
    """

    def slope(log_sigma: Tensor, x: Tensor) -> Tensor:
        return x - denoiser(x, torch.as_tensor(log_sigma, dtype=torch.float64, device=x.device).exp())

    return slope
