"""analytic-diffusion-studio: a denoiser of this package as one of its models, which answer `denoise(z, timestep)`.

The protocol was read in the public repository analytic-diffusion/analytic-diffusion-studio, snapshot 79aec54; nothing
is imported from it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from geodiff.adapters.parametrization import vp_to_ve
from geodiff.base.denoiser_type import Denoiser


class StudioDenoiser(nn.Module):
    """x_0 = r(z / sqrt(abar_t); sqrt((1 - abar_t) / abar_t)) for z = sqrt(abar_t) x_0 + sqrt(1 - abar_t) n.

    denoiser   r(x [B, C, H, W], sigma [B], **conditions) -> [B, C, H, W]
    scheduler  of a variance-preserving model (DDIMScheduler there): `alphas_cumprod` is read
    """

    prediction_type = "epsilon"

    def __init__(self, denoiser: Denoiser, scheduler: Any) -> None:
        super().__init__()
        self.denoiser, self.scheduler = denoiser, scheduler

    def denoise(
        self, latents: Tensor, timestep: int | Tensor, *, generator: torch.Generator | None = None, **conditions: Any
    ) -> Tensor:
        """x_0 [B, C, H, W] in the dtype of latents; timestep an integer, 0-d or [B]. Nothing is random here."""
        index = torch.as_tensor(timestep, device="cpu").long()
        return self.denoise_abar(latents, self.scheduler.alphas_cumprod[index].double(), **conditions)

    def denoise_abar(self, latents: Tensor, abar: float | Tensor, **conditions: Any) -> Tensor:
        """The same at abar itself: a number, 0-d or [B]."""
        x, sigma = vp_to_ve(latents.double(), abar)
        return self.denoiser(x, sigma, **conditions).to(latents.dtype)

    def denoise_sigma(self, x: Tensor, sigma: float | Tensor, **conditions: Any) -> Tensor:
        """r(x; sigma), in the coordinates x = x_0 + sigma n."""
        return self.denoiser(x, sigma, **conditions)

    def set_timesteps(self, num_steps: int) -> None:
        """As many timesteps of the scheduler, which `sample` there walks down."""
        self.scheduler.set_timesteps(num_steps)
