"""smalldiffusion: in the place of its IdealDenoiser and of its flow models, in its own loops."""

from types import ModuleType

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import OptimalDenoiser, adapters, paths


def ended(steps) -> Tensor:  # type: ignore[no-untyped-def]
    *_, last = steps
    return last


def test_it_is_its_ideal_denoiser(smalldiffusion: ModuleType) -> None:
    points = torch.randn(40, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    ours = adapters.SmallDiffusionModel(OptimalDenoiser(points))
    theirs = smalldiffusion.IdealDenoiser(points.double())
    assert ours.input_dims == tuple(theirs.input_dims)
    x = torch.randn(5, 2, 3, 3, dtype=torch.float64)
    for sigma in (torch.tensor(0.5), torch.tensor(3.0), torch.linspace(0.5, 9, 5).reshape(5, 1, 1, 1)):
        torch.testing.assert_close(ours(x, sigma), theirs(x, sigma.double()), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.predict_eps(x, sigma), ours(x, sigma))


@pytest.mark.parametrize(("gam", "solver"), [(1.0, "euler"), (2.0, None)])
def test_its_loop_ends_on_data(gam: float, solver: str | None, smalldiffusion: ModuleType) -> None:
    denoiser = OptimalDenoiser("digits")
    model = adapters.SmallDiffusionModel(denoiser)
    sigmas = smalldiffusion.ScheduleLogLinear(N=200, sigma_min=0.01, sigma_max=40).sample_sigmas(40)
    start = sigmas[0] * model.rand_input(8)
    found = ended(smalldiffusion.samples(model, sigmas, gam=gam, xt=start))
    assert (found - denoiser(found, 0.01)).abs().max() < 0.1
    if solver:  # gam = 1, mu = 0 is DDIM
        torch.testing.assert_close(found, geodiff.sample(denoiser, start, sigmas, solver).states[-1], rtol=0, atol=1e-3)


def test_flow_in_its_loop(smalldiffusion: ModuleType) -> None:
    denoiser = OptimalDenoiser("digits")
    model = adapters.SmallDiffusionModel(denoiser, flow=True)
    times = smalldiffusion.ScheduleFlow().sample_sigmas(30)
    start = model.rand_input(8)
    found = ended(smalldiffusion.samples(model, times, xt=start))
    torch.testing.assert_close(
        found, geodiff.sample(denoiser, start, times, "euler", path=paths.LINEAR).states[-1], rtol=0, atol=1e-4
    )


def test_classes_and_the_least_loss(smalldiffusion: ModuleType) -> None:
    data = geodiff.data.load("digits")
    denoiser = OptimalDenoiser(data.data, labels=data.labels)
    model = adapters.SmallDiffusionModel(denoiser)
    sigmas = smalldiffusion.ScheduleLogLinear(N=200, sigma_min=0.01, sigma_max=40).sample_sigmas(30)
    wanted = torch.arange(8)
    found = ended(smalldiffusion.samples(model, sigmas, batchsize=8, cond=wanted))
    _, distance = denoiser.posterior(found, 0.05, wanted).mean, (found - denoiser(found, 0.05, wanted)).abs().max()
    assert distance < 0.1
    x0, eps = data.data[:64].float() / 127.5 - 1, torch.randn(64, 1, 8, 8)
    level = torch.full((64, 1, 1, 1), 1.0)
    least = float(model.get_loss(x0, level, eps))
    zero = adapters.SmallDiffusionModel(lambda x, sigma: torch.zeros_like(x), (1, 8, 8))
    assert least < float(zero.get_loss(x0, level, eps))
    flowing = adapters.SmallDiffusionModel(denoiser, flow=True)
    assert float(flowing.get_loss(x0, level / 2, eps)) < float((eps - x0).square().mean())


def test_a_denoiser_without_a_shape_needs_one() -> None:
    with pytest.raises(ValueError, match="input_dims: expected the shape of one point, found none"):
        adapters.SmallDiffusionModel(lambda x, sigma: x)
