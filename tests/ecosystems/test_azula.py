"""azula's samplers, with the optimal denoiser as its Denoiser, on each of its noise schedules."""

from types import ModuleType

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import OptimalDenoiser

SCHEDULES = ["VESchedule", "VPSchedule", "CosineSchedule", "RectifiedSchedule"]
DETERMINISTIC = ["DDIMSampler", "EulerSampler", "HeunSampler"]


def denoiser_of(azula: ModuleType, digits: OptimalDenoiser, name: str):
    from geodiff.adapters.azula import AzulaDenoiser

    options = {"sigma_min": 0.002, "sigma_max": 80.0} if name == "VESchedule" else {}
    return AzulaDenoiser(digits, getattr(azula.noise, name)(**options))


def run(azula: ModuleType, sampler: str, denoiser, noise: Tensor, steps: int) -> tuple[Tensor, float]:
    """Where the sampler ends, in its last state's clean coordinates, and the sigma it began with in ours."""
    alpha, sigma = (s.item() for s in denoiser.schedule(torch.tensor(1.0, dtype=torch.float64)))
    go = getattr(azula.sample, sampler)(denoiser, steps=steps, silent=True, dtype=torch.float64)
    end = go(sigma * noise.double())
    return denoiser(end, torch.tensor(0.0, dtype=torch.float64)).mean, sigma / alpha


def test_it_is_an_azula_denoiser(azula: ModuleType, digits: OptimalDenoiser, noise: Tensor) -> None:
    denoiser = denoiser_of(azula, digits, "VPSchedule")
    assert isinstance(denoiser, azula.denoise.Denoiser)
    posterior = denoiser(noise, torch.tensor(0.5))
    assert isinstance(posterior, azula.denoise.Posterior)
    assert posterior.mean.dtype == torch.float32


@pytest.mark.parametrize("name", SCHEDULES)
def test_its_mean_is_the_formula(name: str, azula: ModuleType, digits: OptimalDenoiser, noise: Tensor) -> None:
    """E[x0 | x_t] from p(x_t | x0) = N(alpha x0, sigma^2 I), weight by weight; t one for all, and one for each."""
    denoiser = denoiser_of(azula, digits, name)
    data = (digits.data.double() / 127.5 - 1).flatten(1)
    x = noise[:6].double()
    times = torch.tensor([0.05, 0.2, 0.4, 0.6, 0.8, 1.0], dtype=torch.float64)
    alpha, sigma = denoiser.schedule(times)
    distance = (x.flatten(1)[:, None] - alpha[:, None, None] * data).square().sum(2)
    expected = torch.softmax(-distance / (2 * sigma**2)[:, None], 1) @ data
    assert torch.allclose(denoiser(x, times).mean.flatten(1), expected, rtol=0, atol=1e-5)
    assert torch.allclose(denoiser(x, times[3]).mean[3].flatten(), expected[3], rtol=0, atol=1e-5)


@pytest.mark.parametrize("sampler", DETERMINISTIC)
@pytest.mark.parametrize("name", ["VESchedule", "VPSchedule"])
def test_deterministic_samplers_end_where_our_heun_does(
    name: str, sampler: str, azula: ModuleType, digits: OptimalDenoiser, noise: Tensor, nearest, heun_ends
) -> None:
    end, sigma_max = run(azula, sampler, denoiser_of(azula, digits, name), noise, 200)
    index, distance = nearest(end)
    assert distance.max() < 1e-3
    share = (index == heun_ends(sigma_max)).double().mean().item()
    print(f"{sampler} on {name}, sigma_max {sigma_max:.6g}: {share:.1%}")
    assert share >= 0.95


@pytest.mark.parametrize("sampler", ["DDPMSampler", "ItoSampler", "zABSampler", "xEABSampler"])
def test_other_samplers_run_to_data_points(
    sampler: str, azula: ModuleType, digits: OptimalDenoiser, noise: Tensor, nearest
) -> None:
    end, _ = run(azula, sampler, denoiser_of(azula, digits, "CosineSchedule"), noise, 100)
    index, distance = nearest(end)
    assert distance.max() < 1e-3
    assert len(index.unique()) > 32


def test_classes_reach_the_denoiser(azula: ModuleType, noise: Tensor) -> None:
    dataset = geodiff.data.load("digits")
    denoiser = denoiser_of(azula, OptimalDenoiser(dataset.data, labels=dataset.labels), "VPSchedule")
    asked = torch.arange(64) % 10
    sampler = azula.sample.DDIMSampler(denoiser, steps=30, silent=True, dtype=torch.float64)
    end = sampler(noise.double(), class_labels=asked)
    found = denoiser.denoiser.posterior(end, 0.01, topk=1).indices[:, 0]
    assert torch.equal(torch.as_tensor(dataset.labels)[found], asked)


@pytest.mark.parametrize("batch", [(), (1,), (0,), (4, 16), (2, 3, 4)])
def test_batches_have_any_shape(batch: tuple[int, ...], azula: ModuleType, digits: OptimalDenoiser) -> None:
    denoiser = denoiser_of(azula, digits, "VPSchedule")
    x = torch.randn(*batch, *digits.shape, dtype=torch.float64)
    flat = x.reshape(-1, *digits.shape)
    t = torch.tensor(0.4, dtype=torch.float64)
    assert torch.equal(denoiser(x, t).mean.flatten(), denoiser(flat, t).mean.flatten())
    assert denoiser(x, t).mean.shape == x.shape
    times = torch.rand(batch, dtype=torch.float64)
    expected = denoiser(flat, times.reshape(-1)).mean
    assert torch.equal(denoiser(x, times).mean, expected.reshape(x.shape))


def test_times_broadcast_and_labels_go_along(azula: ModuleType) -> None:
    from geodiff.adapters.azula import AzulaDenoiser

    data, labels = torch.randn(30, 2), torch.arange(30) % 3
    denoiser = AzulaDenoiser(OptimalDenoiser(data, labels=labels), azula.noise.VPSchedule())
    x, t, classes = torch.randn(4, 16, 2), torch.rand(16), torch.randint(3, (4, 16))
    found = denoiser(x, t, class_labels=classes).mean
    expected = denoiser(x.reshape(64, 2), t.repeat(4), class_labels=classes.reshape(64)).mean
    assert torch.equal(found, expected.reshape(4, 16, 2))


def test_a_sampler_takes_a_single_point(azula: ModuleType, digits: OptimalDenoiser) -> None:
    denoiser = denoiser_of(azula, digits, "VPSchedule")
    sampler = azula.sample.DDIMSampler(denoiser, steps=4, silent=True)
    assert sampler(torch.randn(digits.shape)).shape == digits.shape
