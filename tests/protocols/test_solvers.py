"""What every solver keeps, found by its name in SOLVERS: beside it stands tests/solvers/test_solver_orders.py."""

import pytest
import torch

import geodiff
from geodiff.solvers import SOLVERS
from tests.unit_gaussian import gaussian

NAMES = sorted(SOLVERS)
SIGMAS = geodiff.schedules.karras(8, sigma_max=20.0)
NOISE = 20 * torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
DATA = torch.randint(0, 256, (30, 2, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
def test_a_denoiser_that_knows_the_answer_is_followed_there(name: str) -> None:
    target = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(2, 4)
    end = geodiff.sample(lambda x, sigma: target.expand_as(x), NOISE, SIGMAS, name).states[-1]
    torch.testing.assert_close(end, target.expand_as(end), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_last_step_to_zero_gives_what_the_denoiser_says(name: str) -> None:
    trajectory = geodiff.sample(gaussian, NOISE, SIGMAS, name)
    torch.testing.assert_close(trajectory.states[-1], trajectory.denoised[-1], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_the_noise_stays_as_it_is_and_the_dtype_too(name: str) -> None:
    noise = NOISE.float()
    before = noise.clone()
    trajectory = geodiff.sample(gaussian, noise, SIGMAS, name)
    assert torch.equal(noise, before)
    assert torch.equal(trajectory.states[0], before)
    assert trajectory.states.dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_a_query_goes_its_way_whoever_is_beside_it(name: str) -> None:
    denoiser = geodiff.OptimalDenoiser(DATA)
    together = geodiff.sample(denoiser, NOISE, SIGMAS, name).states
    for b in range(3):
        alone = geodiff.sample(denoiser, NOISE[b : b + 1], SIGMAS, name).states[:, 0]
        torch.testing.assert_close(alone, together[:, b], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_optimal_denoiser_is_no_special_case(name: str) -> None:
    """Solved with r written straight to its place, and with r that a function returns: the same trajectory."""
    denoiser = geodiff.OptimalDenoiser(DATA)
    fused = geodiff.sample(denoiser, NOISE, SIGMAS, name)
    plain = geodiff.sample(lambda x, sigma: denoiser(x, sigma), NOISE, SIGMAS, name)
    torch.testing.assert_close(fused.states, plain.states, rtol=1e-9, atol=1e-9)
    assert fused.metadata["evaluations"] == plain.metadata["evaluations"]


@pytest.mark.parametrize("name", NAMES)
def test_even_levels_of_one_step_are_an_euler_step(name: str) -> None:
    trajectory = geodiff.sample(gaussian, NOISE, [20.0, 0.0], name)
    torch.testing.assert_close(trajectory.states[1], gaussian(NOISE, torch.tensor(20.0)), rtol=1e-13, atol=0)
