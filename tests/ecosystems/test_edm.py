"""EDM's convention for a network: what its sampler reads and how it calls, against a sampler that does just that."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import OptimalDenoiser, schedules


def edm_sampler(
    net: Any,
    latents: Tensor,
    class_labels: Tensor | None = None,
    randn_like: Callable[[Tensor], Tensor] = torch.randn_like,
    num_steps: int = 18,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
    churn: float = 0.0,
    noise_scale: float = 1.0,
) -> Tensor:
    """Algorithm 2 of Karras et al. (2206.00364) as published code calls a network: states and levels in float64.

    latents [B, C, H, W] of level 1. The network limits the range of levels, rounds them, and gets each as a 0-d tensor.
    """
    sigma_min, sigma_max = max(sigma_min, net.sigma_min), min(sigma_max, net.sigma_max)
    ramp = torch.arange(num_steps, dtype=torch.float64, device=latents.device) / (num_steps - 1)
    ends = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    levels = net.round_sigma((ends[0] + ramp * (ends[1] - ends[0])) ** rho)
    levels = torch.cat([levels, torch.zeros_like(levels[:1])])
    gamma = min(churn / num_steps, 2**0.5 - 1)

    x = latents.to(torch.float64) * levels[0]
    for level, following in itertools.pairwise(levels):
        raised = net.round_sigma(level + gamma * level)
        x = x + (raised**2 - level**2).sqrt() * noise_scale * randn_like(x)
        slope = (x - net(x, raised, class_labels).to(torch.float64)) / raised
        ahead = x + (following - raised) * slope
        if following > 0:
            again = (ahead - net(ahead, following, class_labels).to(torch.float64)) / following
            ahead = x + (following - raised) * (slope + again) / 2
        x = ahead
    return x


@pytest.fixture(scope="module")
def classes() -> OptimalDenoiser:
    dataset = geodiff.data.load("digits")
    return OptimalDenoiser(dataset.data, labels=dataset.labels)


def test_what_the_sampler_reads(digits: OptimalDenoiser, classes: OptimalDenoiser) -> None:
    assert (digits.img_channels, digits.img_resolution, digits.label_dim, classes.label_dim) == (1, 8, 0, 10)
    assert (max(0.002, digits.sigma_min), min(80.0, digits.sigma_max)) == (0.002, 80.0)
    levels = schedules.karras(5)[:-1]
    assert torch.equal(digits.round_sigma(levels), levels)
    assert digits.round_sigma(levels[0]).shape == ()


def test_deterministic_sampling_is_our_heun(digits: OptimalDenoiser, noise: Tensor) -> None:
    theirs = edm_sampler(digits, noise)
    ours = geodiff.sample(digits, 80.0 * noise.double(), schedules.edm())
    assert theirs.dtype == torch.float64
    assert torch.allclose(theirs, ours.states[-1], rtol=0, atol=1e-9)


def test_200_steps_end_where_our_heun_does(digits: OptimalDenoiser, noise: Tensor, nearest, heun_ends) -> None:
    index, distance = nearest(edm_sampler(digits, noise, num_steps=200))
    assert distance.max() < 1e-5
    assert (index == heun_ends(80.0)).double().mean() >= 0.95


def test_stochastic_sampling_ends_on_data_points(digits: OptimalDenoiser, noise: Tensor, nearest) -> None:
    generator = torch.Generator().manual_seed(11)
    fresh = functools.partial(torch.randn, generator=generator, dtype=torch.float64)
    end = edm_sampler(digits, noise, randn_like=lambda x: fresh(x.shape), num_steps=40, churn=40, noise_scale=1.007)
    index, distance = nearest(end)
    assert distance.max() < 1e-5
    assert len(index.unique()) > 32


def test_one_hot_classes(classes: OptimalDenoiser, noise: Tensor) -> None:
    asked = torch.arange(64) % classes.label_dim
    one_hot = torch.eye(classes.label_dim)[asked]
    end = edm_sampler(classes, noise, one_hot)
    found = classes.posterior(end, 0.01, topk=1).indices[:, 0]
    assert torch.equal(torch.as_tensor(geodiff.data.load("digits").labels)[found], asked)
    assert torch.equal(end, edm_sampler(classes, noise, asked))


def test_classes_are_refused_without_labels(digits: OptimalDenoiser, noise: Tensor) -> None:
    with pytest.raises(ValueError, match="class_labels: expected None, found classes"):
        edm_sampler(digits, noise, torch.eye(10)[torch.zeros(64, dtype=torch.long)])


def test_float32_states_and_a_level_of_another_dtype(digits: OptimalDenoiser, noise: Tensor) -> None:
    """Networks are also called with float32 states beside a float64 level, 0-d or [B, 1, 1, 1]."""
    sigma = torch.tensor(2.5, dtype=torch.float64)
    one = digits(2.5 * noise, sigma)
    assert one.dtype == torch.float32
    assert torch.equal(one, digits(2.5 * noise, sigma.expand(64).reshape(64, 1, 1, 1), None))
