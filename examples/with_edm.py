"""EDM's convention: float64 states, 0-d float64 levels that the network rounds, one-hot classes (2206.00364)."""

import itertools

import torch

import geodiff

dataset = geodiff.data.load("digits")
net = geodiff.OptimalDenoiser(dataset.data, labels=dataset.labels)
torch.manual_seed(0)

latents = torch.randn(64, net.img_channels, net.img_resolution, net.img_resolution)
class_labels = torch.eye(net.label_dim)[torch.arange(64) % net.label_dim]
sigma_min, sigma_max = max(0.002, net.sigma_min), min(80.0, net.sigma_max)
levels = net.round_sigma(geodiff.schedules.karras(18, sigma_min, sigma_max)[:-1])
levels = torch.cat([levels, torch.zeros_like(levels[:1])])

x = latents.to(torch.float64) * levels[0]
for sigma, following in itertools.pairwise(levels):
    slope = (x - net(x, sigma, class_labels).to(torch.float64)) / sigma
    ahead = x + (following - sigma) * slope
    if following > 0:
        again = (ahead - net(ahead, following, class_labels).to(torch.float64)) / following
        ahead = x + (following - sigma) * (slope + again) / 2
    x = ahead

on_data = int(((x - net(x, 0.01, class_labels)).flatten(1).norm(dim=1) < 1e-3).sum())
print(f"{on_data} of 64 samples are data points of the class that was asked for")
