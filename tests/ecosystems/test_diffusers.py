"""diffusers: its schedulers stepping with the optimal denoiser, and its networks as denoisers of this package."""

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import geodiff
from geodiff import OptimalDenoiser, adapters, schedules

# diffusers passes torch tensors to numpy, which has another opinion on that since version 2.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning"),
]

STEPS = 200
SCHEDULERS = [
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "UniPCMultistepScheduler",
]
EXPANDING = ("EulerDiscreteScheduler", "HeunDiscreteScheduler")  # their samples are x, not z = x / sqrt(1 + sigma^2)


def scheduler_of(diffusers: ModuleType, name: str, steps: int, **options: Any) -> Any:
    scheduler = getattr(diffusers, name)(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", **options)
    scheduler.set_timesteps(steps)
    return scheduler


def run(model: nn.Module, scheduler: Any, x: Tensor) -> Tensor:
    """The loop of every diffusers pipeline."""
    for t in scheduler.timesteps:
        x = scheduler.step(model(scheduler.scale_model_input(x, t), t), t, x).prev_sample
    return x


CASES = [
    *[(name, "sample", {}, STEPS) for name in SCHEDULERS],
    *[(name, kind, {}, 60) for name in SCHEDULERS for kind in ("epsilon", "v_prediction")],
    # Levels between those of training, whose timesteps diffusers rounds; DDIM has none.
    *[(name, "sample", {"use_karras_sigmas": True}, 60) for name in SCHEDULERS[1:]],
]


@pytest.mark.parametrize(("name", "kind", "options", "steps"), CASES)
def test_schedulers_end_where_our_heun_does(
    name: str,
    kind: str,
    options: dict[str, Any],
    steps: int,
    diffusers: ModuleType,
    digits: OptimalDenoiser,
    noise: Tensor,
    nearest,
    heun_ends,
) -> None:
    scheduler = scheduler_of(diffusers, name, steps, prediction_type=kind, **options)
    model = adapters.SchedulerModel(digits, scheduler)
    sigma_max = model.sigma(scheduler.timesteps[0]).item()
    x = sigma_max * noise
    index, distance = nearest(run(model, scheduler, x if name in EXPANDING else x / (1 + sigma_max**2) ** 0.5))
    assert distance.max() < 1e-5
    share = (index == heun_ends(sigma_max)).double().mean().item()
    print(f"{name} {kind} {options} {steps} steps: {share:.1%}")
    assert share >= 0.95


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_schedulers_that_precondition_end_where_our_heun_does(
    name: str, diffusers: ModuleType, digits: OptimalDenoiser, noise: Tensor, nearest, heun_ends
) -> None:
    scheduler = getattr(diffusers, name)(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5)
    scheduler.set_timesteps(STEPS)
    index, distance = nearest(run(adapters.RawNetwork(digits, sigma_data=0.5), scheduler, 80.0 * noise))
    assert distance.max() < 1e-4
    share = (index == heun_ends(80.0)).double().mean().item()
    print(f"{name}: {share:.1%}")
    assert share >= 0.95


def test_a_scheduler_that_preconditions_is_sent_to_the_right_adapter(diffusers: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"found EDMEulerScheduler.*allowed with geodiff.adapters.RawNetwork"):
        adapters.SchedulerModel(len, diffusers.EDMEulerScheduler())


@pytest.mark.parametrize("name", ["KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"])
def test_a_scheduler_that_asks_between_its_levels_is_refused(name: str, diffusers: ModuleType) -> None:
    """Its `sigmas` would give the level of the step, not that of the question: wrong, and it would look right."""
    with pytest.raises(ValueError, match=f"^scheduler: expected one that asks at the levels .* found {name}"):
        adapters.SchedulerModel(len, getattr(diffusers, name)())


class Levels(nn.Module):
    """A model that answers x0 = 0 by way of SchedulerModel, and notes the level it is asked at and the share of z."""

    def __init__(self, scheduler: Any) -> None:
        super().__init__()
        self.model = adapters.SchedulerModel(self.zero, scheduler)
        self.asked: list[tuple[float, float]] = []

    def zero(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.asked.append((sigma.item(), x.abs().max().item()))
        return torch.zeros_like(x)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return self.model(z, t)


WITH_SIGMAS = [*SCHEDULERS[1:], "DEISMultistepScheduler", "DPMSolverSinglestepScheduler", "LMSDiscreteScheduler"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *[(name, {}) for name in ("DDIMScheduler", "PNDMScheduler", *WITH_SIGMAS)],
        *[(name, {"use_karras_sigmas": True}) for name in WITH_SIGMAS],
    ],
)
def test_every_question_is_asked_at_its_level(name: str, options: dict[str, Any], diffusers: ModuleType) -> None:
    """Data that are one point, 0: the flow is x = sigma noise, exactly, in every solver: so x tells the true level."""
    scheduler = scheduler_of(diffusers, name, 20, prediction_type="epsilon", **options)
    model = Levels(scheduler)
    sigma = model.model.sigma(scheduler.timesteps[0]).item()
    x = torch.full((1, 2), sigma, dtype=torch.float64)
    run(model, scheduler, x if name in (*EXPANDING, "LMSDiscreteScheduler") else x / (1 + sigma**2) ** 0.5)
    assert len(model.asked) >= 20
    for asked, true in model.asked:
        assert asked == pytest.approx(true, rel=1e-3)


@pytest.mark.parametrize("name", SCHEDULERS[1:])
def test_a_timestep_out_of_turn_is_refused(
    name: str, diffusers: ModuleType, digits: OptimalDenoiser, noise: Tensor
) -> None:
    """A level off would be a wrong answer that looks right."""
    scheduler = scheduler_of(diffusers, name, 20, prediction_type="sample")
    model = adapters.SchedulerModel(digits, scheduler)
    first, second = scheduler.timesteps[0], scheduler.timesteps[1]
    scheduler.step(model(scheduler.scale_model_input(noise, first), first), first, noise)
    assert model.sigma(second) < 157
    with pytest.raises(ValueError, match=r"timestep: expected that of step 1 of the scheduler, found 999"):
        model(noise, first)


def tiny_unet(diffusers: ModuleType, **options: Any) -> nn.Module:
    torch.set_num_threads(1)  # faster at this size; the root conftest puts it back
    torch.manual_seed(3)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        add_attention=False,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        **options,
    )
    return unet.double().eval().requires_grad_(False)


class Plain(nn.Module):
    """A network of diffusers as the scheduler's loop calls it: just the tensor."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return self.unet(z, t).sample


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_a_network_in_our_euler_goes_where_its_scheduler_takes_it(
    name: str, kind: str, diffusers: ModuleType, noise: Tensor
) -> None:
    """DDIM is Euler in other coordinates: the same network, the same levels, so the same end."""
    extra = {"clip_sample": False} if name == "DDIMScheduler" else {}
    scheduler = scheduler_of(
        diffusers, name, 10, prediction_type=kind, **extra
    )  # 10: Euler's timesteps, too, are whole
    unet = tiny_unet(diffusers)
    denoiser = adapters.DiffusersDenoiser(unet, scheduler)
    sigmas = [adapters.sigma_from_abar(scheduler.alphas_cumprod[int(t)]).item() for t in scheduler.timesteps]
    x = sigmas[0] * noise[:4].double()
    ours = geodiff.sample(denoiser, x, [*sigmas, 0.0], solver="euler").states[-1]
    theirs = run(Plain(unet), scheduler, x if name in EXPANDING else x / (1 + sigmas[0] ** 2) ** 0.5)
    # They step with float32 levels.
    off = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    print(f"{name} {kind}: {off:.1e}")
    assert off < 1e-5


def test_a_network_runs_in_every_solver_and_keeps_its_dtype(diffusers: ModuleType, noise: Tensor) -> None:
    scheduler = diffusers.DDPMScheduler()
    denoiser = adapters.DiffusersDenoiser(tiny_unet(diffusers).float(), scheduler)
    sigmas = schedules.karras(6, denoiser.sigma_min, denoiser.sigma_max)
    for x in (noise[:2], noise[:2].double()):
        trajectory = geodiff.sample(denoiser, denoiser.sigma_max * x, sigmas, solver="heun")
        assert trajectory.states.isfinite().all()
        assert trajectory.denoised.dtype == x.dtype
    with pytest.raises(ValueError, match=r"sigma: expected a level that the network was trained on, found 0\.002"):
        geodiff.sample(denoiser, noise[:2], schedules.karras(6, sigma_max=1.0))


def test_classes_reach_the_network(diffusers: ModuleType, noise: Tensor) -> None:
    unet = tiny_unet(diffusers, num_class_embeds=10)
    denoiser = adapters.DiffusersDenoiser(unet, diffusers.DDPMScheduler())
    x = noise[:2].double()
    ones, twos = (denoiser(x, 1.0, torch.tensor([k, k])) for k in (1, 2))
    assert not torch.allclose(ones, twos)
    assert torch.equal(denoiser(x, 1.0, class_labels=torch.tensor([1, 2]))[0], ones[0])


def test_a_scheduler_without_training_levels_is_sent_to_the_right_adapter(diffusers: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"^scheduler: .* found EDMEulerScheduler; allowed .*PreconditionedDenoiser"):
        adapters.DiffusersDenoiser(nn.Identity(), diffusers.EDMEulerScheduler())


def test_a_network_trained_down_to_pure_noise(diffusers: ModuleType, noise: Tensor) -> None:
    """Zero terminal signal: the last training level has no sigma, all others keep theirs."""
    scheduler = diffusers.DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    assert scheduler.alphas_cumprod[-1] == 0
    denoiser = adapters.DiffusersDenoiser(tiny_unet(diffusers), scheduler)
    assert denoiser.sigma_max == adapters.sigma_from_abar(scheduler.alphas_cumprod[-2]).item()
    assert denoiser.timestep(torch.tensor(denoiser.sigma_max)).item() == pytest.approx(998)
    assert denoiser(denoiser.sigma_max * noise[:2].double(), denoiser.sigma_max).isfinite().all()


def test_rounding_to_a_training_level(diffusers: ModuleType) -> None:
    scheduler = diffusers.DDPMScheduler()
    denoiser = adapters.DiffusersDenoiser(nn.Identity(), scheduler, quantize=True)
    levels = adapters.sigma_from_abar(scheduler.alphas_cumprod)
    for sigma in (3, 3.0, torch.tensor(3), torch.tensor([3.0, 3.0], dtype=torch.float64)):
        rounded = denoiser.round_sigma(sigma)
        nearest = levels[(levels.log() - torch.tensor(3.0).double().log()).abs().argmin()]
        torch.testing.assert_close(rounded.double(), nearest.expand(rounded.shape), rtol=1e-6, atol=0)


def test_a_network_by_the_definition(diffusers: ModuleType, noise: Tensor) -> None:
    """From the definition, by hand: z, the prediction of eps, and x0 = (z - sqrt(1 - abar) eps) / sqrt(abar)."""
    scheduler = diffusers.DDPMScheduler()
    unet = tiny_unet(diffusers)
    abar = scheduler.alphas_cumprod[300].double()
    z = noise[:3].double()
    expected = (z - (1 - abar).sqrt() * unet(z, torch.tensor(300)).sample) / abar.sqrt()
    x, sigma = adapters.vp_to_ve(z, abar)
    assert torch.allclose(adapters.DiffusersDenoiser(unet, scheduler)(x, sigma), expected, rtol=1e-10, atol=1e-10)


def test_a_model_answers_in_the_ways_of_diffusers(
    diffusers: ModuleType, digits: OptimalDenoiser, noise: Tensor
) -> None:
    scheduler = scheduler_of(diffusers, "DDIMScheduler", 20)
    model, t = adapters.SchedulerModel(digits, scheduler), scheduler.timesteps[3]
    found = model(noise, t)
    assert isinstance(found, Tensor)
    assert torch.equal(found.sample, found)
    assert type(found + 0) is Tensor
    (alone,) = model(noise, t, return_dict=False)
    assert type(alone) is Tensor
    assert torch.equal(alone, found)
    assert torch.equal(model(noise, t.expand(len(noise))), found)
    with pytest.raises(ValueError, match=r"timestep: expected one for all points, found \[1, 2\]"):
        model(noise[:2], torch.tensor([1, 2]))


@pytest.mark.parametrize("pipeline", ["DDIMPipeline", "DDPMPipeline"])
def test_a_pipeline_takes_the_denoiser_for_a_network(
    pipeline: str, diffusers: ModuleType, digits: OptimalDenoiser, nearest
) -> None:
    scheduler = getattr(diffusers, pipeline.replace("Pipeline", "Scheduler"))(
        prediction_type="sample", clip_sample=False
    )
    pipe = getattr(diffusers, pipeline)(adapters.SchedulerModel(digits, scheduler), scheduler)
    pipe.set_progress_bar_config(disable=True)
    (images,) = pipe(batch_size=3, num_inference_steps=30, output_type="np", return_dict=False)
    assert images.shape == (3, 8, 8, 1)
    _, distance = nearest(torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1)
    assert distance.max() < 0.5


def test_a_denoiser_of_other_points_has_no_size_of_images(diffusers: ModuleType) -> None:
    flat = adapters.SchedulerModel(OptimalDenoiser(torch.randn(5, 2)), scheduler_of(diffusers, "DDIMScheduler", 5))
    with pytest.raises(AttributeError, match=r"config|over images"):
        _ = flat.config.sample_size


@pytest.mark.parametrize("kind", ["sample", "v_prediction"])
def test_zero_terminal_snr_begins_at_the_mean(
    kind: str, diffusers: ModuleType, digits: OptimalDenoiser, noise: Tensor, nearest
) -> None:
    options = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "clip_sample": False}
    scheduler = scheduler_of(diffusers, "DDIMScheduler", 60, prediction_type=kind, **options)
    model = adapters.SchedulerModel(digits, scheduler)
    assert scheduler.alphas_cumprod[scheduler.timesteps[0]] == 0
    first = model(noise, scheduler.timesteps[0])
    sign = -1 if kind == "v_prediction" else 1
    assert torch.allclose(sign * first, digits.mean.expand_as(first), rtol=0, atol=1e-4)
    _, distance = nearest(run(model, scheduler, noise))
    assert distance.max() < 0.5


def test_zero_terminal_snr_tells_no_noise(diffusers: ModuleType, digits: OptimalDenoiser, noise: Tensor) -> None:
    scheduler = scheduler_of(diffusers, "DDIMScheduler", 60, rescale_betas_zero_snr=True, timestep_spacing="trailing")
    model = adapters.SchedulerModel(digits, scheduler)
    with pytest.raises(ValueError, match=r"^scheduler: expected prediction_type .* found 'epsilon' of DDIMScheduler"):
        model(noise, scheduler.timesteps[0])
