"""Contract 1 along whole trajectories: pictures of digits, every solver, two tolerances, several noises; hard data."""

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import OptimalDenoiser, sample, schedules
from geodiff.solvers import SOLVERS

SEEDS = (0, 1, 2)
#: From where everything is dense to where samples have collapsed.
SIGMAS = schedules.karras(10)


def noise(denoiser: OptimalDenoiser, sigmas: Tensor, each: int, seeds: tuple[int, ...] = SEEDS) -> Tensor:
    """`each` samples of every seed."""
    random = (torch.Generator().manual_seed(seed) for seed in seeds)
    return float(sigmas[0]) * torch.cat([torch.randn(each, *denoiser.shape, generator=one) for one in random])


def answered(trajectory: geodiff.Trajectory, path: str) -> int:
    return sum(cost.paths.get(path, 0) for cost in trajectory.cost)


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return geodiff.data.load("mnist5k").data


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("tol", [1e-5, 1e-3])
def test_every_solver_on_pictures_of_digits(digits: Tensor, solver: str, tol: float) -> None:
    denoiser = OptimalDenoiser(digits, tol=tol, backend="cpu")
    found = sample(denoiser, noise(denoiser, SIGMAS, 4), SIGMAS, solver, verify=True)
    assert answered(found, "dense") > 0
    assert answered(found, "remembered") > 0
    # And what is kept against the reference, which shares nothing with the core, for one sample of each seed.
    reach = float(geodiff.reference.model_space(digits, torch.float64).flatten(1).norm(dim=1).max())
    for sigma, x, r in zip(SIGMAS[:-1].tolist(), found.states[:-1, ::4], found.denoised[:, ::4], strict=True):
        exact = geodiff.reference.denoise(x.double(), digits, sigma).flatten(1)
        off = (r.flatten(1).double() - exact).norm(dim=1) / exact.norm(dim=1).clamp_min(0.01 * reach)
        assert float(off.max()) <= tol, sigma


@pytest.mark.heavy
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("tol", [1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("seed", range(5))
def test_and_with_more_samples_levels_and_seeds(digits: Tensor, solver: str, tol: float, seed: int) -> None:
    denoiser, sigmas = OptimalDenoiser(digits, tol=tol, backend="cpu"), schedules.karras(18)
    sample(denoiser, noise(denoiser, sigmas, 20, (seed,)), sigmas, solver, verify=True)


def near(digits: Tensor, apart: float) -> Tensor:
    """float32 pictures, the second half as the first but for `apart`: rows that only distances to the last bit tell."""
    half = geodiff.reference.model_space(digits[:300], torch.float32)
    random = torch.Generator().manual_seed(7)
    step = torch.randn(half.shape, generator=random)
    return torch.cat([half, half + apart * step / step.flatten(1).norm(dim=1).view(-1, 1, 1, 1)])


@pytest.mark.parametrize("tol", [1e-5, 1e-3])
@pytest.mark.parametrize("apart", [1e-6, 1e-4, 1e-2, 1.0])
def test_near_duplicates(digits: Tensor, apart: float, tol: float) -> None:
    denoiser = OptimalDenoiser(near(digits, apart), tol=tol, backend="cpu")
    for solver in ("heun", "dpmpp2m"):
        sample(denoiser, noise(denoiser, SIGMAS, 2), SIGMAS, solver, verify=True)


@pytest.mark.parametrize("tol", [1e-5, 1e-3])
@pytest.mark.parametrize("solver", ["heun", "euler", "ipndm3"])
def test_duplicates(digits: Tensor, solver: str, tol: float) -> None:
    few = digits[:300]
    one_off = few[:100].clone()
    one_off[:, 0, 14, 14] ^= 1  # a single number, by one of 255
    denoiser = OptimalDenoiser(torch.cat([few, few[:200], few[:50], one_off]), tol=tol, backend="cpu")
    found = sample(denoiser, noise(denoiser, SIGMAS, 2), SIGMAS, solver, verify=True)
    assert answered(found, "remembered") > 0
    if solver != "ipndm3":  # which on these levels extrapolates beyond the data
        assert found.cost[-1].rows < 100  # a sample between equal rows has collapsed all the same


@pytest.mark.parametrize("tol", [1e-5, 1e-3])
@pytest.mark.parametrize("solver", ["heun", "dpmpp2m"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_few_pictures(count: int, solver: str, tol: float) -> None:
    """Longer rows than those that are summed in float64 throughout."""
    stored = torch.randint(0, 256, (count, 1, 128, 160), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    stored[-1] = stored[0] ^ (torch.arange(160) == 80) if count == 3 else stored[-1]
    denoiser = OptimalDenoiser(stored, tol=tol, backend="cpu")
    found = sample(denoiser, noise(denoiser, SIGMAS, 2), SIGMAS, solver, verify=True)
    assert answered(found, "remembered") > 0


@pytest.mark.parametrize("tol", [1e-5, 1e-3])
@pytest.mark.parametrize("solver", ["heun", "euler", "dpmpp2m"])
@pytest.mark.parametrize("bytes_", [False, True])
def test_data_that_do_not_collapse(digits: Tensor, solver: str, tol: float, bytes_: bool) -> None:
    """All rows within the last levels of each other: the posterior stays spread to the end, and no list is short."""
    if bytes_:  # one grey level apart in 16 of 784 numbers: 0.03 across
        stored = digits[:1].repeat(800, 1, 1, 1)
        where = torch.rand(stored.shape, generator=torch.Generator().manual_seed(4)) < 0.02
        stored = torch.where(where, stored ^ 1, stored)
        sigmas = schedules.karras(10, 0.05, 80.0)
    else:
        random = torch.Generator().manual_seed(5)
        stored = -0.5 + 1e-4 * torch.randn(500, 1, 28, 28, generator=random)
        sigmas = schedules.karras(10, 0.01, 80.0)
    denoiser = OptimalDenoiser(stored, tol=tol, backend="cpu")
    found = sample(denoiser, noise(denoiser, sigmas, 2), sigmas, solver, verify=True)
    ess = denoiser.posterior(found.states[-2], float(sigmas[-2])).ess
    assert float(ess.min()) > 20
