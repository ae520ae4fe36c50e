"""flow_matching: its ODE solver along the optimal velocity (pip install --no-deps flow_matching, and torchdiffeq)."""

import torch

import geodiff
from geodiff import adapters, paths

try:
    from flow_matching.solver import ODESolver
except ImportError as error:
    raise SystemExit(f"{error}; pip install torchdiffeq && pip install --no-deps flow_matching") from None

denoiser = geodiff.OptimalDenoiser("digits")
torch.manual_seed(0)
noise = torch.randn(64, 1, 8, 8)

# Convention B: noise at t = 0, data at t = 1; v = E[x_1 - n | x_t].
solver = ODESolver(velocity_model=adapters.FlowModel(denoiser, "B"))
theirs = solver.sample(noise, step_size=0.01, method="euler")

ours = geodiff.sample(denoiser, noise, paths.times(100, convention="B"), "euler", path=paths.Linear("B")).states[-1]
print(f"largest difference from our sample on the same grid: {(theirs - ours).abs().max():.1e}")
