"""diffusers' schedulers of flow matching, stepping with the optimal velocity: shifted, inverted, rounded timesteps."""

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import geodiff
from geodiff import OptimalDenoiser, adapters, paths

# diffusers passes torch tensors to numpy, which has another opinion on that since version 2.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning"),
]


def run(model: nn.Module, scheduler: Any, x: Tensor, rounded: Any = lambda t: t) -> Tensor:
    """The loop of the pipelines; `rounded` is what a pipeline makes of a timestep before it calls the model."""
    for t in scheduler.timesteps:
        x = scheduler.step(model(x, rounded(t)), t, x).prev_sample
    return x


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [4, 50])
def test_it_ends_where_sample_ends_on_the_same_grid(
    shift: float, steps: int, diffusers: ModuleType, digits: OptimalDenoiser, noise: Tensor
) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    assert scheduler.sigmas[0] == 1  # pure noise, which is evaluated
    theirs = run(adapters.SchedulerModel(digits, scheduler), scheduler, noise)
    ours = geodiff.sample(digits, noise, scheduler.sigmas, "euler", path=paths.LINEAR).states[-1]
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)
    if steps == 50:  # 4 steps end between points
        assert (ours - digits(ours, 0.01)).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("shift", "levels"), [(1.0, (1, 0.667, 0.334, 0.001, 0)), (3.0, (1, 0.8576923, 0.6021506, 0.00892857, 0))]
)
def test_known_levels(shift: float, levels: tuple[float, ...], diffusers: ModuleType) -> None:
    """The last level but 0 is shifted twice: once when the scheduler is made, once when steps are set."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(4)
    assert scheduler.sigmas.tolist() == pytest.approx(levels, abs=5e-8)


def test_timesteps_as_pipelines_pass_them(diffusers: ModuleType, digits: OptimalDenoiser, noise: Tensor) -> None:
    """One for each x, divided by 1000, in bfloat16: the level is the scheduler's own all the same."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    ends = []
    for rounded in (
        lambda t: t,
        lambda t: t.expand(64),
        lambda t: t.expand(64).to(torch.bfloat16) / 1000,  # FLUX
        lambda t: t / 1000,
    ):
        scheduler.set_timesteps(10)
        ends.append(run(adapters.SchedulerModel(digits, scheduler), scheduler, noise, rounded))
    for end in ends[1:]:
        assert torch.equal(end, ends[0])


def test_a_timestep_out_of_turn_is_refused(diffusers: ModuleType, digits: OptimalDenoiser, noise: Tensor) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(10)
    model = adapters.SchedulerModel(digits, scheduler)
    first = scheduler.timesteps[0]
    scheduler.step(model(noise, first), first, noise)
    with pytest.raises(ValueError, match=r"timestep: expected that of step 1 of the scheduler, found 1000"):
        model(noise, first)


def test_dynamic_shift_and_begin_index(diffusers: ModuleType, digits: OptimalDenoiser, noise: Tensor) -> None:
    """As image-to-image pipelines start: in the middle of the levels, at x_t of an image."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(20, mu=0.8)
    scheduler.set_begin_index(8)
    model = adapters.SchedulerModel(digits, scheduler)
    points = digits.data[:64].float() / 127.5 - 1
    x = start = paths.LINEAR.mix(points, noise, float(scheduler.sigmas[8]))
    assert float(model.sigma(scheduler.timesteps[8])) == pytest.approx(
        float(scheduler.sigmas[8] / (1 - scheduler.sigmas[8]))
    )
    for t in scheduler.timesteps[8:]:
        x = scheduler.step(model(x, t), t, x).prev_sample
    ours = geodiff.sample(digits, start, scheduler.sigmas[8:], "euler", path=paths.LINEAR).states[-1]
    torch.testing.assert_close(x, ours, rtol=0, atol=1e-4)


def test_levels_of_convention_b(diffusers: ModuleType, digits: OptimalDenoiser, noise: Tensor) -> None:
    """invert_sigmas, as Mochi has it: levels rise from 0 to 1 and the prediction is x_1 - n."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True, shift=1.0)
    scheduler.set_timesteps(20)
    assert scheduler.sigmas[-1] == 1
    theirs = run(adapters.SchedulerModel(digits, scheduler), scheduler, noise)
    ours = geodiff.sample(digits, noise, scheduler.sigmas, "euler", path=paths.Linear("B")).states[-1]
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)


def test_heun_ends_where_our_heun_does(diffusers: ModuleType, digits: OptimalDenoiser, noise: Tensor) -> None:
    scheduler = diffusers.FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(30)
    theirs = run(adapters.SchedulerModel(digits, scheduler), scheduler, noise)
    assert (theirs - digits(theirs, 0.01)).abs().max() < 1e-4  # its levels are doubled, so no grid to compare on


def test_a_network_of_flow_matching_is_sent_to_the_right_adapter(diffusers: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"found FlowMatchEuler.*allowed .*geodiff.adapters.FlowDenoiser"):
        adapters.DiffusersDenoiser(nn.Identity(), diffusers.FlowMatchEulerDiscreteScheduler())


def test_a_network_trained_on_timesteps_as_a_denoiser(diffusers: ModuleType, digits: OptimalDenoiser) -> None:
    """SD3 and FLUX ask at 1000 t or t: FlowDenoiser turns such a network round."""
    network = adapters.FlowModel(digits, "A", scale=1000)
    x = torch.randn(8, *digits.shape, dtype=torch.float64)
    turned = adapters.FlowDenoiser(network, "A", scale=1000)
    for sigma in (0.3, 5.0):
        torch.testing.assert_close(turned(sigma * x, sigma), digits(sigma * x, sigma), rtol=1e-4, atol=1e-4)
