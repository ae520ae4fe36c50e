"""diffusers' FlowMatchEuler scheduler along the optimal velocity (pip install optimal-denoiser[ecosystems])."""

import torch

import geodiff
from geodiff import adapters, paths

try:
    from diffusers import FlowMatchEulerDiscreteScheduler
except ImportError as error:
    raise SystemExit(f"{error}; pip install optimal-denoiser[ecosystems]") from None

denoiser = geodiff.OptimalDenoiser("digits")
torch.manual_seed(0)
noise = torch.randn(64, 1, 8, 8)

scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
scheduler.set_timesteps(50)
model, x = adapters.SchedulerModel(denoiser, scheduler), noise
for t in scheduler.timesteps:
    x = scheduler.step(model(x, t), t, x).prev_sample

ours = geodiff.sample(denoiser, noise, scheduler.sigmas, "euler", path=paths.LINEAR).states[-1]
print(f"largest difference from our sample on the same grid: {(x - ours).abs().max():.1e}")
