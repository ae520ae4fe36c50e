"""The conversions as identities both ways, and the adapters that need no other package."""

import math
import types

import pytest
import torch
from torch import Tensor, nn

import geodiff
from geodiff import OptimalDenoiser, adapters

B, SHAPE = 5, (2, 3, 4)
LEVELS = torch.tensor([0.002, 0.3, 1.0, 14.6, 80.0], dtype=torch.float64)
# Each way to pass a level.
SIGMAS = {
    "float": 0.7,
    "0-d": torch.tensor(2.5, dtype=torch.float64),
    "[B]": LEVELS,
    "[B, 1, 1, 1]": LEVELS.reshape(-1, 1, 1, 1),
}


def normal(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(B, *SHAPE, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def wide(sigma: float | Tensor) -> Tensor:
    return torch.as_tensor(sigma, dtype=torch.float64).reshape(-1, 1, 1, 1)


@pytest.fixture(params=SIGMAS.values(), ids=SIGMAS)
def sigma(request: pytest.FixtureRequest) -> float | Tensor:
    return request.param


@pytest.fixture
def truth(sigma: float | Tensor) -> dict[str, Tensor]:
    """One clean point and one noise, and everything else straight from the definitions."""
    x0, eps, s = normal(1), normal(2), wide(sigma)
    signal = (1 / (1 + s**2)).sqrt()  # sqrt(abar)
    noise = (1 / (1 + 1 / s**2)).sqrt()  # sqrt(1 - abar), without its cancellation at small sigma
    return {
        "x0": x0,
        "eps": eps,
        "x": x0 + s * eps,
        "z": signal * x0 + noise * eps,
        "v": signal * eps - noise * x0,
        "score": -eps / s,
    }


CONVERSIONS = ["x0_to_eps", "eps_to_x0", "x0_to_v", "v_to_x0", "eps_to_v", "v_to_eps", "x0_to_score", "score_to_x0"]


def condition(name: str, sigma: float | Tensor) -> Tensor:
    """How much a conversion magnifies the rounding of x and of the value given: not an error of the formula."""
    s = wide(sigma)
    return {"x0_to_eps": 1 / s, "x0_to_v": 1 / s, "x0_to_score": 1 / s**2, "eps_to_v": s, "eps_to_x0": s,
            "score_to_x0": s, "v_to_x0": 1 + 0 * s, "v_to_eps": 1 + 0 * s}[name].clamp(min=1)  # fmt: skip


def test_every_conversion_is_here() -> None:
    vp = {"sigma_from_abar", "abar_from_sigma", "vp_to_ve", "ve_to_vp"}
    assert {*CONVERSIONS, *vp} == {name for name in adapters.__all__ if "_to_" in name or "_from_" in name}


@pytest.mark.parametrize("name", CONVERSIONS)
def test_conversion_is_the_definition(name: str, truth: dict[str, Tensor], sigma: float | Tensor) -> None:
    source, target = name.split("_to_")
    found = getattr(adapters, name)(truth["x"], truth[source], sigma)
    assert ((found - truth[target]).abs() <= 4e-15 * condition(name, sigma)).all()


@pytest.mark.parametrize("name", CONVERSIONS)
def test_conversion_is_undone(name: str, truth: dict[str, Tensor], sigma: float | Tensor) -> None:
    source, target = name.split("_to_")
    there, back = getattr(adapters, name), getattr(adapters, f"{target}_to_{source}")
    value = normal(3)  # any value will do: both are affine in it
    found = back(truth["x"], there(truth["x"], value, sigma), sigma)
    slack = condition(name, sigma) * condition(f"{target}_to_{source}", sigma)
    assert ((found - value).abs() <= 4e-15 * slack * (1 + truth["x"].abs())).all()


def test_preserving_coordinates_both_ways(truth: dict[str, Tensor], sigma: float | Tensor) -> None:
    z, abar = adapters.ve_to_vp(truth["x"], sigma)
    assert torch.allclose(z, truth["z"], rtol=0, atol=4e-15)
    x, levels = adapters.vp_to_ve(z, abar)
    assert torch.allclose(x, truth["x"], rtol=1e-14, atol=0)
    # 1 - abar holds sigma^2 to 1e-16 absolutely, so sigma = 0.002 to 3e-11 of itself.
    assert torch.allclose(levels, wide(sigma).flatten().expand(B), rtol=1e-10, atol=0)
    assert levels.dtype == abar.dtype == torch.float64


def test_abar_and_sigma_both_ways() -> None:
    abar = torch.tensor([[0.9999, 0.5], [1e-3, 6e-5]], dtype=torch.float64)
    sigma = adapters.sigma_from_abar(abar)
    assert torch.equal(sigma, ((1 - abar) / abar).sqrt())
    assert torch.allclose(adapters.abar_from_sigma(sigma), abar, rtol=1e-14, atol=0)
    assert adapters.sigma_from_abar(0.5).item() == 1.0
    assert adapters.abar_from_sigma(2.0).item() == 0.2
    assert adapters.abar_from_sigma(2.0).shape == ()


def test_the_optimal_denoiser_in_all_its_forms() -> None:
    """Its score is the gradient of its log density, so the other forms hang together with something outside of here."""
    denoiser = OptimalDenoiser("digits")
    x, sigma = 2 * torch.randn(4, 1, 8, 8, dtype=torch.float64), 1.5
    x0 = denoiser(x, sigma)
    score = adapters.x0_to_score(x, x0, sigma)
    assert torch.allclose(score, denoiser.score(x, sigma), rtol=1e-12, atol=1e-12)
    eps = adapters.x0_to_eps(x, x0, sigma)
    assert torch.allclose(eps, -sigma * score, rtol=1e-12, atol=1e-12)
    v = adapters.x0_to_v(x, x0, sigma)
    z, abar = adapters.ve_to_vp(x, sigma)
    assert torch.allclose(abar[0].sqrt() * z - (1 - abar[0]).sqrt() * v, x0, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_answers_have_the_dtype_of_x(dtype: torch.dtype) -> None:
    x, x0 = normal(1, dtype), normal(2, dtype)
    assert adapters.x0_to_v(x, x0, LEVELS).dtype == dtype
    assert adapters.vp_to_ve(x, 0.5)[0].dtype == dtype


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: adapters.x0_to_eps(x, x[:, :1], 1.0), ValueError, r"x0: expected the shape of x, \[5, 2, 3, 4\]"),
        (lambda x: adapters.v_to_x0(x, [1.0], 1.0), TypeError, "v: expected a torch.Tensor, found list"),
        (lambda x: adapters.eps_to_x0(x, x, 0.0), ValueError, "sigma: expected a positive, finite noise level"),
        (lambda x: adapters.eps_to_v(x, x, torch.ones(3)), ValueError, r"sigma: .*found shape \[3\]"),
        (lambda x: adapters.score_to_x0(x, x.long(), 1.0), TypeError, "score: expected a supported dtype, found int64"),
        (
            lambda x: adapters.vp_to_ve(x, 0.0),
            ValueError,
            "abar: .*found 0; allowed 0 < abar < 1",
        ),
        (lambda x: adapters.vp_to_ve(x, torch.tensor([0.5, 1.0])), ValueError, "abar: .*found 1; allowed 0 < abar < 1"),
        (lambda x: adapters.vp_to_ve(x, math.nan), ValueError, "abar: expected a number in range, found nan"),
        (
            lambda x: adapters.vp_to_ve(x, True),
            TypeError,
            "abar: expected a real number, found bool",
        ),
        (lambda x: adapters.sigma_from_abar(torch.tensor(1)), TypeError, "abar: .*found a tensor of torch.int64"),
        (
            lambda x: adapters.RawNetwork(len, 0.0),
            ValueError,
            "sigma_data: .*found 0; allowed sigma_data > 0",
        ),
        (lambda x: adapters.RawNetwork(len, "0.5"), TypeError, "sigma_data: expected a real number, found str"),
    ],
)
def test_bad_input_is_named(call, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(normal(1))


def test_preconditioning_is_the_published_formula() -> None:
    def network(x: Tensor, c_noise: Tensor) -> Tensor:
        return torch.sin(x) + c_noise.reshape(-1, 1, 1, 1)

    x, s = normal(1), wide(LEVELS)
    total = (s**2 + 0.25).sqrt()
    expected = 0.25 / total**2 * x + 0.5 * s / total * (torch.sin(x / total) + s.log() / 4)
    assert torch.allclose(adapters.PreconditionedDenoiser(network)(x, LEVELS), expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_preconditioning_is_undone_both_ways(sigma_data: float) -> None:
    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.tanh(x / (1 + sigma.reshape(-1, 1, 1, 1)))

    x = normal(1) * (1 + wide(LEVELS))
    again = adapters.PreconditionedDenoiser(adapters.RawNetwork(denoiser, sigma_data), sigma_data)
    assert torch.allclose(again(x, LEVELS), denoiser(x, LEVELS), rtol=0, atol=1e-12)

    def network(x: Tensor, c_noise: Tensor) -> Tensor:
        return torch.sin(x) + c_noise.reshape(-1, 1, 1, 1)

    raw = adapters.RawNetwork(adapters.PreconditionedDenoiser(network, sigma_data), sigma_data)
    scaled, c_noise = normal(2), LEVELS.log() / 4
    # r = c_skip x + c_out F is rounded at the size of c_skip x, and divided by c_out, 0.002 at the least.
    assert torch.allclose(raw(scaled, c_noise), network(scaled, c_noise), rtol=0, atol=1e-12)


def test_preconditioned_network_runs_in_its_own_dtype_and_gets_its_conditions() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor, c_noise: Tensor, shift: float, class_labels: Tensor | None = None) -> Tensor:
            assert x.dtype == c_noise.dtype == torch.float32
            return self.scale * x + shift if class_labels is None else class_labels.reshape(-1, 1, 1, 1) + 0 * x

    denoiser = adapters.PreconditionedDenoiser(Network())
    moved = denoiser(normal(1), 1.0, shift=1.0) - denoiser(normal(1), 1.0, shift=0.0)
    assert moved.dtype == torch.float64
    assert torch.allclose(moved, torch.full_like(moved, 0.5 / math.sqrt(1.25)), atol=1e-6)
    labelled = denoiser(torch.zeros(2, *SHAPE), 1.0, torch.tensor([0, 1]), shift=0.0)
    assert torch.equal(labelled[0], torch.zeros(SHAPE))
    assert torch.allclose(labelled[1], torch.full(SHAPE, 0.5 / math.sqrt(1.25)))


def test_probability_flow_is_the_slope_in_log_sigma() -> None:
    """Against the difference of an exact flow: unit Gaussian data, x(sigma) = x sqrt(1 + sigma^2)."""
    flow = adapters.probability_flow(lambda x, sigma: x / (1 + sigma**2))
    start, log_sigma, h = normal(1), torch.tensor(0.4, dtype=torch.float64), 1e-5

    def exact(t: Tensor) -> Tensor:
        return start * (1 + (2 * t).exp()).sqrt()

    slope = (exact(log_sigma + h) - exact(log_sigma - h)) / (2 * h)
    assert torch.allclose(flow(log_sigma, exact(log_sigma)), slope, rtol=1e-8, atol=1e-9)
    assert flow(log_sigma.float(), start.float()).dtype == torch.float32


def table(kind: str, **config: object) -> types.SimpleNamespace:
    """What the adapters read of a scheduler of diffusers, with DDPM's linear betas."""
    abar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    settings = types.SimpleNamespace(prediction_type=kind, **config)
    return types.SimpleNamespace(config=settings, alphas_cumprod=abar, num_inference_steps=1000)


@pytest.mark.parametrize("kind", ["sample", "epsilon", "v_prediction"])
def test_a_denoiser_goes_through_a_network_of_diffusers_and_back(kind: str) -> None:
    """SchedulerModel makes it a network, DiffusersDenoiser makes that a denoiser: it must be the one we began with."""
    scheduler = table(kind)
    model = adapters.SchedulerModel(lambda x, sigma: torch.tanh(x / (1 + sigma)), scheduler)

    class Network(nn.Module):
        def forward(self, z: Tensor, timesteps: Tensor, return_dict: bool) -> tuple[Tensor]:
            assert not return_dict
            assert (timesteps == timesteps.round()).all()
            return (torch.cat([model(row[None], t) for row, t in zip(z, timesteps, strict=True)]),)

    again = adapters.DiffusersDenoiser(Network(), scheduler)
    sigma = adapters.sigma_from_abar(scheduler.alphas_cumprod[torch.tensor([0, 1, 400, 900, 999])])
    x = normal(1) * (1 + wide(sigma))
    assert torch.allclose(again(x, sigma), torch.tanh(x / (1 + wide(sigma))), rtol=0, atol=1e-11)


def test_timesteps_between_the_levels() -> None:
    scheduler = table("epsilon")
    denoiser = adapters.DiffusersDenoiser(nn.Identity(), scheduler)
    levels = adapters.sigma_from_abar(scheduler.alphas_cumprod)
    assert torch.equal(denoiser.timestep(levels), torch.arange(1000.0))
    halfway = (levels[:-1] * levels[1:]).sqrt()
    assert torch.allclose(denoiser.timestep(halfway), torch.arange(999.0) + 0.5, rtol=0, atol=1e-4)
    assert (denoiser.sigma_min, denoiser.sigma_max) == (levels[0].item(), levels[-1].item())
    assert denoiser.timestep(levels[[0, -1]].float()).tolist() == [0.0, 999.0]
    assert torch.equal(denoiser.round_sigma(halfway), halfway)

    quantized = adapters.DiffusersDenoiser(nn.Identity(), scheduler, quantize=True)
    near = levels * 1.0003  # nearer to its own level than to the next, which is 1.0005 times as high or more
    assert torch.equal(quantized.timestep(near[:-1]), torch.arange(999.0))
    assert torch.allclose(quantized.round_sigma(near[:-1]), levels[:-1], rtol=1e-14)


@pytest.mark.parametrize("sigma", [1e-3, 500.0])
def test_a_network_is_not_asked_outside_of_its_levels(sigma: float) -> None:
    denoiser = adapters.DiffusersDenoiser(nn.Identity(), table("epsilon"))
    with pytest.raises(
        ValueError, match=r"sigma: expected a level that the network was trained on, found .*; allowed 0"
    ):
        denoiser(normal(1), sigma)


def test_schedulers_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="expected a known prediction_type, found 'flow_prediction'; allowed sample"):
        adapters.SchedulerModel(len, table("flow_prediction"))
    with pytest.raises(ValueError, match="expected a known prediction_type, found 'flow'"):
        adapters.SchedulerModel(len, table("epsilon", use_flow_sigmas=True))
    unset = table("sample")
    unset.num_inference_steps, unset.sigmas = None, torch.ones(3)
    with pytest.raises(ValueError, match="expected set_timesteps to have been called"):
        adapters.SchedulerModel(len, unset)(normal(1), 999)


def test_adapters_need_no_other_package() -> None:
    assert geodiff.adapters is adapters
    assert not {"azula", "AzulaDenoiser"} & set(adapters.__all__)
