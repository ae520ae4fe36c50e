"""k-diffusion's samplers, called as they are, with the optimal denoiser as the model."""

import base64
import hashlib
import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import OptimalDenoiser, schedules

# torchsde, of k-diffusion's own calls: levels that went through logarithms in float32 pass the ends of its interval.
pytestmark = pytest.mark.filterwarnings("ignore:Should have t[ab][<>]=t[01] but got:UserWarning")

STEPS = 200
SIGMA_MIN, SIGMA_MAX = 0.002, 80.0

# Those that take levels, and those that take a range. Each needs the model, the noise, and nothing else.
DETERMINISTIC = ["dpm_2", "dpmpp_2m", "euler", "heun", "lms"]
STOCHASTIC = [
    "dpm_2_ancestral",
    "dpmpp_2m_sde",
    "dpmpp_2s_ancestral",
    "dpmpp_3m_sde",
    "dpmpp_sde",
    "euler_ancestral",
]
BY_RANGE = ["dpm_adaptive", "dpm_fast"]


def run(
    sampling: ModuleType, name: str, model: Callable[..., Tensor], x: Tensor, steps: int, **options: float
) -> Tensor:
    sampler = getattr(sampling, f"sample_{name}")
    if name == "dpm_adaptive":
        return sampler(model, x, SIGMA_MIN, SIGMA_MAX, disable=True, **options)
    if name == "dpm_fast":
        return sampler(model, x, SIGMA_MIN, SIGMA_MAX, steps, disable=True, **options)
    sigmas = sampling.get_sigmas_karras(steps, SIGMA_MIN, SIGMA_MAX)
    return sampler(model, x, sigmas, disable=True, **options)


def test_no_sampler_is_left_out(k_diffusion: ModuleType) -> None:
    found = {name.removeprefix("sample_") for name in vars(k_diffusion.sampling) if name.startswith("sample_")}
    assert found == {*DETERMINISTIC, *STOCHASTIC, *BY_RANGE}


def test_its_sampling_is_the_published_file(k_diffusion: ModuleType) -> None:
    """Byte for byte what the wheel recorded, from the folder of the distribution; and our stand-ins are gone."""
    [record] = [f for f in importlib.metadata.files("k-diffusion") or [] if f.as_posix() == "k_diffusion/sampling.py"]
    path = Path(k_diffusion.sampling.__file__)
    assert path.samefile(record.locate())
    digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).decode().rstrip("=")
    assert (record.hash.mode, record.hash.value) == ("sha256", digest)
    for module in ("torchsde", "torchdiffeq", "scipy"):  # what it does need is real
        assert sys.modules[module].__file__
    assert "clip" not in sys.modules


def test_the_levels_are_ours(k_diffusion: ModuleType) -> None:
    theirs = k_diffusion.sampling.get_sigmas_karras(STEPS, SIGMA_MIN, SIGMA_MAX)
    assert torch.allclose(theirs.double(), schedules.karras(STEPS), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", [*DETERMINISTIC, *BY_RANGE])
def test_deterministic_samplers_end_where_our_heun_does(
    name: str, k_diffusion: ModuleType, digits: OptimalDenoiser, noise: Tensor, nearest, heun_ends
) -> None:
    end = run(k_diffusion.sampling, name, digits, SIGMA_MAX * noise, STEPS)
    index, distance = nearest(end)
    # Those by range stop at sigma_min = 0.002, with noise of norm 0.002 sqrt(64) still on.
    assert distance.max() < (0.05 if name in BY_RANGE else 1e-4)
    share = (index == heun_ends(SIGMA_MAX)).double().mean().item()
    print(f"{name}: {share:.1%}")
    assert share >= 0.95


@pytest.mark.parametrize("name", ["euler", "heun"])
def test_the_samplers_we_share_end_on_the_same_points(
    name: str, k_diffusion: ModuleType, digits: OptimalDenoiser, noise: Tensor, nearest
) -> None:
    """All of them, also where 200 steps of Euler are too few to end where Heun does."""
    start, sigmas = SIGMA_MAX * noise, k_diffusion.sampling.get_sigmas_karras(60, SIGMA_MIN, SIGMA_MAX)
    ours = geodiff.sample(digits, start, sigmas, solver=name).states[-1]
    theirs = getattr(k_diffusion.sampling, f"sample_{name}")(digits, start, sigmas, disable=True)
    assert torch.equal(nearest(theirs)[0], nearest(ours)[0])
    assert nearest(theirs)[1].max() < 1e-4


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_samplers_end_on_data_points(
    name: str, k_diffusion: ModuleType, digits: OptimalDenoiser, noise: Tensor, nearest, heun_ends
) -> None:
    index, distance = nearest(run(k_diffusion.sampling, name, digits, SIGMA_MAX * noise, 60))
    assert distance.max() < 1e-4
    # Fresh noise leads elsewhere, and to many places.
    assert (index == heun_ends(SIGMA_MAX)).double().mean() < 0.5
    assert len(index.unique()) > 32


@pytest.mark.parametrize("name", STOCHASTIC)
def test_without_their_noise_stochastic_samplers_end_where_our_heun_does(
    name: str, k_diffusion: ModuleType, digits: OptimalDenoiser, noise: Tensor, nearest, heun_ends
) -> None:
    index, distance = nearest(run(k_diffusion.sampling, name, digits, SIGMA_MAX * noise, STEPS, eta=0.0))
    assert distance.max() < 1e-4
    assert (index == heun_ends(SIGMA_MAX)).double().mean() >= 0.95


def test_extra_arguments_reach_the_denoiser(k_diffusion: ModuleType, noise: Tensor) -> None:
    dataset = geodiff.data.load("digits")
    denoiser = OptimalDenoiser(dataset.data, labels=dataset.labels)
    asked = torch.arange(64) % 10
    sigmas = k_diffusion.sampling.get_sigmas_karras(20, SIGMA_MIN, SIGMA_MAX)
    end = k_diffusion.sampling.sample_dpmpp_2m(
        denoiser, SIGMA_MAX * noise, sigmas, extra_args={"class_labels": asked}, disable=True
    )
    index = denoiser.posterior(end, 0.01, topk=1).indices[:, 0]
    assert torch.equal(torch.as_tensor(dataset.labels)[index], asked)
