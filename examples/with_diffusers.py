"""diffusers: its schedulers step with the optimal denoiser in the network's place."""

import torch

import geodiff
from geodiff.adapters import RawNetwork, SchedulerModel

try:
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EDMEulerScheduler, UniPCMultistepScheduler
except ImportError as error:
    raise SystemExit(f"{error}; pip install optimal-denoiser[ecosystems]") from None

denoiser = geodiff.OptimalDenoiser("digits")
torch.manual_seed(0)
noise = torch.randn(64, 1, 8, 8)

preserving = [DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler]
schedulers = [kind(beta_schedule="linear", prediction_type="sample") for kind in preserving]
for scheduler in [*schedulers, EDMEulerScheduler(sigma_data=0.5)]:
    scheduler.set_timesteps(50)
    if isinstance(scheduler, EDMEulerScheduler):  # it preconditions, so it wants the network inside
        model = RawNetwork(denoiser, sigma_data=0.5)
    else:
        model = SchedulerModel(denoiser, scheduler)
    x = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = scheduler.step(model(scheduler.scale_model_input(x, t), t), t, x).prev_sample
    on_data = int(((x - denoiser(x, 0.01)).flatten(1).norm(dim=1) < 1e-3).sum())
    print(f"{type(scheduler).__name__}: {on_data} of 64 samples are data points")
