"""A diffusers network with its scheduler as a denoiser of this package (pip install optimal-denoiser[ecosystems]).

The network here is random; `DDPMPipeline.from_pretrained(...)` has a trained `unet` and its `scheduler`.
"""

import torch

import geodiff
from geodiff.adapters import DiffusersDenoiser

try:
    from diffusers import DDPMScheduler, UNet2DModel
except ImportError as error:
    raise SystemExit(f"{error}; pip install optimal-denoiser[ecosystems]") from None

torch.manual_seed(0)
blocks = {"down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D")}
unet = UNet2DModel(
    sample_size=8, in_channels=1, out_channels=1, block_out_channels=(16, 32), norm_num_groups=8, **blocks
).eval()
learned = DiffusersDenoiser(unet, DDPMScheduler(prediction_type="sample"))
optimal = geodiff.OptimalDenoiser("digits")

sigmas = geodiff.schedules.karras(10, learned.sigma_min, learned.sigma_max)
trajectory = geodiff.sample(learned, learned.sigma_max * torch.randn(8, 1, 8, 8), sigmas)
for sigma, x, denoised in zip(sigmas[:-1], trajectory.states, trajectory.denoised, strict=False):
    deviation = (denoised - optimal(x, sigma)).flatten(1).norm(dim=1).mean()
    print(f"sigma {sigma:8.3f}: |learned - optimal| = {deviation:.3f}")
