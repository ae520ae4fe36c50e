"""Mean shift: the modes of the digits at falling bandwidth, and where annealing leads."""

import torch

import geodiff

denoiser = geodiff.OptimalDenoiser("digits")
starts = (denoiser.data[::6].float() / 127.5 - 1).contiguous()

for sigma in (2.0, 1.2, 0.9, 0.7, 0.3):
    found = geodiff.mean_shift(denoiser, starts, sigma)
    print(f"sigma {sigma}: {len(found.modes)} modes from {len(starts)} starts, {found.counts[0]} of them to one")

torch.manual_seed(0)
noise = 80 * torch.randn(64, 1, 8, 8)
annealed = geodiff.mean_shift(denoiser, noise, geodiff.schedules.karras(21)[:-1])
print(
    f"annealed: {int(annealed.converged.sum())} of 64 noises converged, to {len(annealed.modes)} different data points"
)
