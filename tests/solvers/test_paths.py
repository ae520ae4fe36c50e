"""Paths from noise to data: their scales, derivatives and inverses, in both conventions of time."""

import math
from typing import Literal

import pytest
import torch

from geodiff import paths
from geodiff.paths import Path

EVERY = [
    paths.Linear(),
    paths.Polynomial(n=3),
    paths.LinearVP(),
    paths.Cosine(),
    paths.VP(),
    paths.Sigmoid(),
    paths.Sigmoid(start=-1.0, end=4.0, tau=0.5),
]
#: Those that leave a little noise where the data are.
BLURRED = [paths.Lipman(), paths.Blurred(), paths.Blurred(sigma_min=0.01)]
BOTH = [p for path in EVERY for p in (path, path.reversed())]
ALL = BOTH + [p for path in BLURRED for p in (path, path.reversed())]


def ids(path: Path) -> str:
    return path.name


@pytest.mark.parametrize(
    ("path", "t", "expected"),
    [
        (paths.Linear("B"), 0.4, (0.4, 0.6, 1.0, -1.0)),
        (paths.Cosine("B"), 0.4, (0.587785252292, 0.809016994375, 1.270800923079, -0.923290915245)),
        (paths.VP("B"), 0.7, (0.629550000336, 0.776959971348, 1.910684251021, -1.548176631014)),
        (paths.Sigmoid("A"), 0.4, (0.812969761708, 0.582305904614, -0.932724210463, 1.302196273662)),
    ],
)
def test_known_scales(path: Path, t: float, expected: tuple[float, ...]) -> None:
    assert [float(value) for value in path.at(t)] == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("path", ALL, ids=ids)
def test_derivatives_are_those_of_the_scales(path: Path) -> None:
    t = torch.tensor([0.02, 0.3, 0.5, 0.9, 0.98], dtype=torch.float64)
    h = 1e-6
    scales, above, below = path.at(t), path.at(t + h), path.at(t - h)
    torch.testing.assert_close((above.alpha - below.alpha) / (2 * h), scales.d_alpha, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close((above.sigma - below.sigma) / (2 * h), scales.d_sigma, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("path", BOTH, ids=ids)
def test_ends_and_the_way_back_from_a_level(path: Path) -> None:
    data = path.at(path.data_end)
    assert (float(data.alpha), float(data.sigma)) == pytest.approx((1, 0), abs=1e-15)
    near = torch.tensor([1e-6, 1e-3, 0.2, 0.7, 0.999], dtype=torch.float64)
    t = near if path.convention == "A" else 1 - near
    torch.testing.assert_close(path.since_data(path.time(path.level(t))), near, rtol=1e-9, atol=0)


@pytest.mark.parametrize("path", BLURRED, ids=ids)
def test_a_path_that_ends_in_a_little_noise(path: Path) -> None:
    assert float(path.at(0.0).sigma) == pytest.approx(path.sigma_min)  # type: ignore[attr-defined]
    t = torch.tensor([0.0, 1e-3, 0.2, 0.7, 0.999], dtype=torch.float64)
    torch.testing.assert_close(path.time(path.level(t)), t, rtol=1e-9, atol=1e-12)
    assert float(path.time(torch.inf)) == 1
    assert float(path.time(path.level(0.0))) == 0
    with pytest.raises(ValueError, match=r"level: expected a noise level on the path .*, found 0.001; allowed 0.[01]"):
        path.time(1e-3)


@pytest.mark.parametrize("path", EVERY, ids=ids)
def test_near_the_data_sigma_keeps_its_digits(path: Path) -> None:
    """Taken as 1 - alpha or sqrt(1 - alpha^2) it would be 0, or wrong in the third digit."""
    t, h = 1e-9, 1e-12
    sigma, slope = float(path.at(t).sigma), float(path.at(t).d_sigma)
    step = float(path.at(t + h).sigma - path.at(t - h).sigma) / (2 * h)
    assert sigma > 0
    assert step == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("path", ALL, ids=ids)
def test_the_velocity_takes_back_the_point(path: Path) -> None:
    g = torch.Generator().manual_seed(1)
    x, r = torch.randn(2, 4, 3, dtype=torch.float64, generator=g)
    scales = path.at(torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=torch.float64))
    torch.testing.assert_close(scales.denoised(x, scales.velocity(x, r)), r)


def test_the_velocity_is_the_derivative_along_the_path() -> None:
    """With the very point and noise that made x_t, v is d x_t / dt."""
    g = torch.Generator().manual_seed(1)
    x0, n = torch.randn(2, 4, 3, dtype=torch.float64, generator=g)
    for path in ALL:
        t, h = 0.4, 1e-6
        rate = (path.mix(x0, n, t + h) - path.mix(x0, n, t - h)) / (2 * h)
        torch.testing.assert_close(path.at(t).velocity(path.mix(x0, n, t), x0), rate, rtol=1e-7, atol=1e-8)


def test_conventions_mirror_each_other() -> None:
    for path in EVERY:
        here, there = path.at(0.3), path.reversed().at(0.7)
        torch.testing.assert_close(torch.stack(here[:2]), torch.stack(there[:2]))
        torch.testing.assert_close(torch.stack(here[2:]), -torch.stack(there[2:]))
        assert path.reversed().reversed() == path


def test_times_with_a_shift() -> None:
    """Flow matching's shift, on the levels that a scheduler of diffusers has for 4 steps."""
    assert paths.times(4).tolist() == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    shifted = paths.times(3, 3.0)
    assert shifted.tolist() == pytest.approx([1, 3 * (2 / 3) / (1 + 2 * 2 / 3), 1 / (1 + 2 / 3), 0])
    torch.testing.assert_close(paths.times(3, 3.0, convention="B"), 1 - shifted)


@pytest.mark.parametrize("convention", ["A", "B"])
def test_times_start_and_end_at_0_and_1_whatever_the_shift(convention: Literal["A", "B"]) -> None:
    """As kappa s / (1 + (kappa - 1) s) the first time of one shift in six lay an ulp beyond, and was refused."""
    for shift in (1e-3, *(k / 100 for k in range(1, 100)), 1 / 3, 1.0, 3.0, 1e3):
        found = paths.times(10, shift, convention=convention)
        ends = [1.0, 0.0] if convention == "A" else [0.0, 1.0]
        assert [float(found[0]), float(found[-1])] == ends
        assert bool((found.diff() * (ends[1] - ends[0]) > 0).all())


def test_times_near_the_end_keep_their_digits() -> None:
    """1 - t of a time near 1 has few digits of it left."""
    found = paths.times(4, 1e12, convention="B")
    assert found[1].item() == pytest.approx(1 / 3 / (1e12 + 1 / 3), rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paths.Linear("C"), "convention: found 'C'; allowed 'A'"),
        (lambda: paths.Linear().at(1.5), "t: expected a time, found 1.5; allowed 0 <= t <= 1"),
        (lambda: paths.Linear().at(math.nan), "t: expected a time, found nan"),
        (lambda: paths.Linear().time(-1.0), "level: expected a noise level on the path Linear A, found -1; allowed"),
        (lambda: paths.VP().time(1e9), r"level: expected a noise level on the path VP A, found 1e\+09; allowed 0 .. "),
        (lambda: paths.Polynomial(n=0), "n: expected an integer in range, found 0"),
        (lambda: paths.VP(beta_min=0.0), "beta_min: expected a number in range"),
        (lambda: paths.Sigmoid(start=1.0, end=0.0), "end: expected a number in range, found 0; allowed end > 1"),
        (lambda: paths.times(4, 0.0), "shift: expected a number in range"),
        (lambda: paths.times(4, 1e300), "shift: expected 5 times that differ, found 1e"),
        (lambda: paths.times(4, 1e-300, convention="B"), "shift: expected 5 times that differ, found 1e-300"),
        (lambda: paths.times(4, convention="C"), "convention: found 'C'; allowed 'A'"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments(call, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("path", ALL, ids=ids)
def test_a_compiler_traces_a_path(path: Path) -> None:
    torch._dynamo.reset()
    t = torch.tensor([0.2, 0.7], dtype=torch.float64)

    def asked(t: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scales = path.at(t)
        return path.level(t), *scales, *scales.to_denoiser(2.0), path.mix(torch.ones(2, 3), torch.zeros(2, 3), t)

    for found, expected in zip(torch.compile(asked, backend="eager", fullgraph=True)(t), asked(t), strict=True):
        assert torch.equal(found, expected)
