"""azula: the optimal denoiser as its Denoiser, on a schedule of its own (pip install azula)."""

import torch

import geodiff

try:
    from azula.noise import CosineSchedule
    from azula.sample import DDIMSampler, HeunSampler

    from geodiff.adapters.azula import AzulaDenoiser
except ImportError as error:
    raise SystemExit(f"{error}; pip install azula") from None

optimal = geodiff.OptimalDenoiser("digits")
denoiser = AzulaDenoiser(optimal, CosineSchedule())
torch.manual_seed(0)

for kind in (DDIMSampler, HeunSampler):
    sampler = kind(denoiser, steps=64, silent=True)
    end = sampler(sampler.init((64, 1, 8, 8)))
    near = int(((end - optimal(end, 0.01)).flatten(1).norm(dim=1) < 0.05).sum())  # the schedule ends at sigma = 0.001
    print(f"{kind.__name__}: {near} of 64 samples are data points, but for noise of level 0.001")
