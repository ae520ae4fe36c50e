"""EDM's preconditioning, both ways: from a raw network to a denoiser, and from a denoiser to its raw network.

r(x; sigma) = c_skip x + c_out F(c_in x, c_noise), with, for data of standard deviation s,
c_skip = s^2 / (sigma^2 + s^2), c_out = sigma s / sqrt(sigma^2 + s^2), c_in = 1 / sqrt(sigma^2 + s^2) and
c_noise = ln(sigma) / 4 (Karras et al., 2206.00364, table 1).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from geodiff.adapters.levels import cast_per_point, dtype_of
from geodiff.base.arguments import check_number, check_sigma, check_tensor
from geodiff.base.denoiser_type import Denoiser
from geodiff.base.dtypes import FLOATING


class Coefficients(NamedTuple):
    """c_skip, c_out, c_in and c_noise, each float64 in the shape of sigma."""

    skip: Tensor
    out: Tensor
    scale: Tensor
    noise: Tensor


def coefficients(sigma: Tensor, sigma_data: float) -> Coefficients:
    """The four coefficients of the module's formula; sigma: float64, > 0."""
    total = sigma.square() + sigma_data**2
    return Coefficients(sigma_data**2 / total, sigma * sigma_data / total.sqrt(), 1 / total.sqrt(), sigma.log() / 4)


class PreconditionedDenoiser(nn.Module):
    """r(x; sigma) = c_skip x + c_out F(c_in x, c_noise): a raw network as a denoiser.

    network     F(x [B, *shape], c_noise [B], **conditions) -> [B, *shape]; called in the dtype of its own parameters
    sigma_data  > 0, the standard deviation of the data that it was trained with
    """

    def __init__(self, network: Callable[..., Tensor], sigma_data: float = 0.5) -> None:
        super().__init__()
        self.network = network
        self.sigma_data = check_number(sigma_data, "sigma_data", 0.0)

    def forward(
        self, x: Tensor, sigma: float | Tensor, class_labels: Tensor | None = None, **conditions: Any
    ) -> Tensor:
        """[B, *shape] in the dtype of x. sigma: number, 0-d, [B] or [B, 1, ...]; conditions go to the network."""
        check_tensor(x, "x", FLOATING)
        if class_labels is not None:
            conditions["class_labels"] = class_labels
        c = coefficients(check_sigma(sigma, len(x), device=x.device), self.sigma_data)
        dtype = dtype_of(self.network, x.dtype)
        output = self.network((x * cast_per_point(c.scale, x)).to(dtype), c.noise.to(dtype), **conditions)
        return cast_per_point(c.skip, x) * x + cast_per_point(c.out, x) * output.to(x.dtype)


class RawNetwork(nn.Module):
    """F(c_in x, c_noise) = (r(x; sigma) - c_skip x) / c_out: the network that preconditioning turns into `denoiser`.

    For samplers that precondition by themselves, as diffusers' EDMEulerScheduler does.

    denoiser    r(x [B, *shape], sigma [B], **conditions) -> [B, *shape]
    sigma_data  > 0, as the sampler has it
    """

    def __init__(self, denoiser: Denoiser, sigma_data: float = 0.5) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.sigma_data = check_number(sigma_data, "sigma_data", 0.0)

    def forward(self, scaled: Tensor, c_noise: float | Tensor, **conditions: Any) -> Tensor:
        """[B, *shape] in the dtype of scaled = c_in x. c_noise: number, 0-d, [B] or [B, 1, ...] = ln(sigma) / 4."""
        check_tensor(scaled, "scaled", FLOATING)
        levels = torch.as_tensor(c_noise, device=scaled.device).double().mul(4).exp()
        sigma = check_sigma(levels, len(scaled), device=scaled.device)
        c = coefficients(sigma, self.sigma_data)
        # In float64: at small sigma r and c_skip x all but cancel, and c_out is small.
        x = scaled.double() / cast_per_point(c.scale, scaled.double())
        denoised = self.denoiser(x.to(scaled.dtype), sigma, **conditions).double()
        return ((denoised - cast_per_point(c.skip, x) * x) / cast_per_point(c.out, x)).to(scaled.dtype)
