"""The same noises denoised by the optimal denoiser (copies of digits), by LS and by a network: new ones.

LS (Kamb and Ganguli, 2412.20292) has a posterior a pixel, from a window k(sigma) around it. Pictures: --out FOLDER.
"""

import sys
import time

import torch

import geodiff
from geodiff.output import pictures

data = geodiff.data.load("mnist5k").data  # [5000, 1, 28, 28] uint8
ls = geodiff.LocalDenoiser(data, kind="ls", patch=geodiff.local.published("mnist_unet_zeros"))
denoisers = {"optimal": geodiff.OptimalDenoiser(data), "LS": ls, "network": geodiff.learned.load("mnist5k")}
noise, made = 80 * torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(0)), {}
for name, denoiser in denoisers.items():
    started = time.perf_counter()
    made[name] = geodiff.sample(denoiser, noise, geodiff.schedules.karras(10, sigma_min=0.02), "euler")
    print(f"{name}: 8 samples, 10 levels in {time.perf_counter() - started:.2f} s")
ends = {name: trajectory.states[-1] for name, trajectory in made.items()}
for name, samples in ends.items():
    far = geodiff.quality.nearest(denoisers["optimal"], samples).distance.mean()
    alike = geodiff.locality.correlation(samples, ends["network"]).mean()
    print(f"{name}: {float(far):.2f} from the nearest digit, correlation with the network {float(alike):.2f}")
if "--out" in sys.argv:
    pictures.save_trajectories(f"{sys.argv[-1]}/local.png", made["LS"], samples=4, title="LS over 5,000 digits")
    pictures.save_columns(f"{sys.argv[-1]}/local_beside.png", ends)
