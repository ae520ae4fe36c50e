"""Noise schedules against published values and against the identities that define them."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from geodiff import schedules

# The 21 levels of the authors' analysis, to the five digits that are published.
PUBLISHED = (
    "80 60.557 45.314 33.485 24.408 17.528 12.382 8.5888 5.8389 3.8811 2.5152 1.584 .96542 "
    ".56663 .31828 .16975 .085087 .039541 .016721 .0062659 .002"
)


def test_karras_is_the_published_grid() -> None:
    published = [float(level) for level in PUBLISHED.split()]
    assert schedules.karras(21)[:-1].tolist() == pytest.approx(published, rel=5e-5)


def test_karras_is_even_in_the_root() -> None:
    levels = schedules.karras(9, 0.1, 50.0, rho=3.0)[:-1]
    steps = (levels ** (1 / 3)).diff()
    assert torch.allclose(steps, steps[0].expand(8), rtol=1e-12)


def test_edm_is_karras_on_18_levels() -> None:
    assert torch.equal(schedules.edm(), schedules.karras(18, 0.002, 80.0, 7.0))
    assert torch.equal(schedules.edm(5), schedules.karras(5))


def test_exponential_falls_evenly_in_the_logarithm() -> None:
    levels = schedules.exponential(12, 0.01, 10.0)[:-1]
    assert torch.allclose(levels.log().diff(), torch.tensor(math.log(1e-3) / 11, dtype=torch.float64), rtol=1e-12)


def test_polyexponential_bends_the_logarithm() -> None:
    assert torch.equal(schedules.polyexponential(12), schedules.exponential(12))
    levels = schedules.polyexponential(5, 0.01, 100.0, rho=2.0)[:-1]
    expected = [math.log(1e-2) + ramp**2 * math.log(1e4) for ramp in (1, 0.75, 0.5, 0.25, 0)]
    assert levels.log().tolist() == pytest.approx(expected, rel=1e-12)


def test_vp_is_the_noise_of_the_linear_sde() -> None:
    levels = schedules.vp(4, beta_d=10.0, beta_min=0.2, eps_s=0.01)
    for level, t in zip(levels[:-1].tolist(), (1, 0.67, 0.34, 0.01), strict=True):
        kept = math.exp(-(10.0 * t**2 / 2 + 0.2 * t))  # abar_t = exp(-integral of beta)
        assert level == pytest.approx(math.sqrt((1 - kept) / kept), rel=1e-12)


def test_vp_by_default_is_the_one_of_edm() -> None:
    levels = schedules.vp(18)
    assert levels[0].item() == pytest.approx(math.sqrt(math.exp(19.9 / 2 + 0.1) - 1))
    assert levels[-2].item() == pytest.approx(math.sqrt(math.exp(19.9e-6 / 2 + 1e-4) - 1))


@pytest.mark.parametrize("name", sorted(schedules.SCHEDULES))
@pytest.mark.parametrize("n", [1, 2, 3, 18, 1000])
def test_every_schedule_falls_strictly_to_zero(name: str, n: int) -> None:
    levels = schedules.SCHEDULES[name](n)
    assert levels.shape == (n + 1,)
    assert levels.dtype == torch.float64
    assert levels[-1] == 0
    assert (levels.diff() < 0).all()
    assert torch.isfinite(levels).all()


@pytest.mark.parametrize("schedule", [schedules.karras, schedules.exponential, schedules.polyexponential])
def test_ends_are_exact(schedule: Callable[[int, float, float], torch.Tensor]) -> None:
    levels = schedule(10, 0.003, 70.0)
    assert levels[0] == 70.0
    assert levels[-2] == 0.003
    assert schedule(1, 0.003, 70.0).tolist() == [70.0, 0.0]


def ddpm_products(steps: int = 1000) -> torch.Tensor:
    return (1 - torch.linspace(1e-4, 0.02, steps, dtype=torch.float64)).cumprod(0)


def test_alphas_cumprod_give_their_own_levels() -> None:
    products = ddpm_products()
    levels = schedules.from_alphas_cumprod(products)
    assert levels.shape == (1001,)
    assert torch.allclose(1 / (1 + levels[:-1].flip(0) ** 2), products, rtol=1e-12)
    assert levels[0].item() == pytest.approx(157.4, abs=0.1)  # DDPM's linear schedule
    assert torch.equal(schedules.from_alphas_cumprod(products, append_zero=False), levels[:-1])


def test_alphas_cumprod_on_fewer_levels() -> None:
    products = ddpm_products()
    every = schedules.from_alphas_cumprod(products, append_zero=False)
    assert torch.allclose(schedules.from_alphas_cumprod(products, 1000)[:-1], every, rtol=1e-9)
    assert torch.allclose(schedules.from_alphas_cumprod(products, 4)[:-1], every[[0, 333, 666, 999]], rtol=1e-9)
    assert schedules.from_alphas_cumprod(products, 1).tolist() == pytest.approx([every[0].item(), 0])
    between = schedules.from_alphas_cumprod([0.8, 0.5], 3, append_zero=False)
    assert between.tolist() == pytest.approx([1, math.sqrt(0.5), 0.5])


@pytest.mark.parametrize("products", [[0.9, 0.5], (0.9, 0.5), np.array([0.9, 0.5]), torch.tensor([0.9, 0.5])], ids=type)
def test_alphas_cumprod_of_any_kind(products: object) -> None:
    levels = schedules.from_alphas_cumprod(products)  # type: ignore[arg-type]
    assert levels.tolist() == pytest.approx([1, 1 / 3, 0], rel=1e-6)
    assert schedules.from_alphas_cumprod([0.5]).tolist() == pytest.approx([1, 0])


@pytest.mark.parametrize(
    ("name", "error", "call"),
    [
        ("n", ValueError, lambda: schedules.karras(0)),
        ("n", TypeError, lambda: schedules.karras(18.0)),  # type: ignore[arg-type]
        ("n", TypeError, lambda: schedules.vp(True)),
        ("n", ValueError, lambda: schedules.from_alphas_cumprod([0.9, 0.5], 0)),
        ("sigma_min", ValueError, lambda: schedules.karras(18, sigma_min=0)),
        ("sigma_min", ValueError, lambda: schedules.karras(18, sigma_min=80, sigma_max=80)),
        ("sigma_min", ValueError, lambda: schedules.exponential(18, 80.0, 0.002)),
        ("sigma_min", TypeError, lambda: schedules.karras(18, sigma_min="0.002")),  # type: ignore[arg-type]
        ("sigma_max", ValueError, lambda: schedules.polyexponential(18, sigma_max=math.inf)),
        ("sigma_max", ValueError, lambda: schedules.exponential(18, sigma_max=math.nan)),
        ("rho", ValueError, lambda: schedules.karras(18, rho=0)),
        ("rho", ValueError, lambda: schedules.polyexponential(18, rho=-1)),
        ("rho", ValueError, lambda: schedules.karras(5, rho=0.005)),  # 80^200
        ("rho", ValueError, lambda: schedules.karras(5, rho=1e17)),
        ("rho", ValueError, lambda: schedules.polyexponential(5, rho=1e6)),
        ("rho", ValueError, lambda: schedules.polyexponential(5, rho=1e-17)),
        ("sigma_min", ValueError, lambda: schedules.karras(9, 80 * (1 - 1e-15), 80.0)),
        ("sigma_min", ValueError, lambda: schedules.exponential(9, 80 * (1 - 1e-15), 80.0)),
        ("eps_s", ValueError, lambda: schedules.vp(5, eps_s=1 - 1e-16)),
        ("eps_s", ValueError, lambda: schedules.vp(5, eps_s=1e-300, beta_min=1e-300)),
        ("n", ValueError, lambda: schedules.from_alphas_cumprod([0.5], 3)),
        ("beta_d", ValueError, lambda: schedules.vp(18, beta_d=-1)),
        ("beta_d", ValueError, lambda: schedules.vp(18, beta_d=1e4)),
        ("beta_min", ValueError, lambda: schedules.vp(18, beta_min=0)),
        ("eps_s", ValueError, lambda: schedules.vp(18, eps_s=1)),
        ("alphas_cumprod", ValueError, lambda: schedules.from_alphas_cumprod([0.5, 0.9])),
        ("alphas_cumprod", ValueError, lambda: schedules.from_alphas_cumprod([0.9, 0.9])),
        ("alphas_cumprod", ValueError, lambda: schedules.from_alphas_cumprod([0.9, 0.0])),
        ("alphas_cumprod", ValueError, lambda: schedules.from_alphas_cumprod([1.0, 0.5])),
        ("alphas_cumprod", ValueError, lambda: schedules.from_alphas_cumprod([0.9, math.nan])),
        ("alphas_cumprod", ValueError, lambda: schedules.from_alphas_cumprod([])),
        ("alphas_cumprod", ValueError, lambda: schedules.from_alphas_cumprod(torch.ones(2, 2) / 2)),
        ("alphas_cumprod", TypeError, lambda: schedules.from_alphas_cumprod("linear")),  # type: ignore[arg-type]
        ("alphas_cumprod", TypeError, lambda: schedules.from_alphas_cumprod(torch.tensor([True, False]))),
    ],
)
def test_bad_arguments_are_named(name: str, error: type[Exception], call: Callable[[], object]) -> None:
    with pytest.raises(error, match=rf"^{name}: expected .* found .*; allowed "):
        call()
