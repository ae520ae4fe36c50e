"""k-diffusion: its samplers take the optimal denoiser as it is (pip install k-diffusion)."""

import torch

import geodiff

try:
    from k_diffusion import sampling
except ImportError as error:
    raise SystemExit(f"{error}; pip install k-diffusion") from None

denoiser = geodiff.OptimalDenoiser("digits")
torch.manual_seed(0)
noise = 80 * torch.randn(64, 1, 8, 8)

sigmas = sampling.get_sigmas_karras(200, sigma_min=0.002, sigma_max=80.0)
ours = geodiff.sample(denoiser, noise, geodiff.schedules.karras(200)).states[-1]
for sampler in (sampling.sample_euler, sampling.sample_heun, sampling.sample_lms, sampling.sample_dpmpp_2m):
    theirs = sampler(denoiser, noise, sigmas, disable=True)
    same = int(((theirs - ours).flatten(1).norm(dim=1) < 1e-3).sum())
    print(f"{sampler.__name__}: {same} of 64 samples end on the same data point as our Heun")
