"""`sample` along a path of flow matching: known ends, Euler in t as Euler in sigma, orders, and every denoiser."""

import itertools

import pytest
import torch
from torch import Tensor

import geodiff
from geodiff import paths, reference, schedules
from geodiff.paths import Path
from tests import field

GRID = [0.9, 0.7, 0.4, 0.1, 0.0]
#: Where Euler's and Heun's methods in t end from 0.9 noise on GRID.
EULER = (0.480321863991, 0.986771964275, 0.36475501928, 4.9938579393)
HEUN = (0.334988150156, 0.986771964275, 0.23056696392, 5.9472156943)
BACKENDS = [name for name in ("reference", "cpu") if geodiff.backends.is_available(name)]


def exact(x: Tensor, sigma: Tensor) -> Tensor:
    """r of the float64 points."""
    return reference.denoise(x, field.points(), sigma)


@pytest.mark.parametrize(("solver", "expected"), [("euler", EULER), ("heun", HEUN)])
def test_known_ends(solver: str, expected: tuple[float, ...]) -> None:
    start = 0.9 * field.noise()
    found = geodiff.sample(exact, start, GRID, solver, path=paths.Linear())
    assert field.summary(found.states[-1]) == pytest.approx(expected, abs=1e-9)
    mirrored = geodiff.sample(exact, start, [1 - t for t in GRID], solver, path=paths.Linear("B"))
    torch.testing.assert_close(mirrored.states, found.states)
    assert mirrored.sigmas.tolist() == pytest.approx([0.1, 0.3, 0.6, 0.9, 1.0])
    for backend in BACKENDS:
        denoiser = geodiff.OptimalDenoiser(field.points().float(), backend=backend)
        ours = geodiff.sample(denoiser, start, GRID, solver, path=paths.Linear())
        torch.testing.assert_close(ours.states, found.states, rtol=0, atol=2e-5)
        torch.testing.assert_close(ours.denoised, found.denoised, rtol=0, atol=2e-5)


def test_euler_in_t_is_euler_in_sigma() -> None:
    """On the linear path, from anywhere on it: x = y / (1 + sigma) and t = sigma / (1 + sigma) at every level."""
    sigmas = schedules.karras(12, sigma_max=9.0)
    noise = sigmas[0] * field.noise()
    expanding = geodiff.sample(exact, noise, sigmas, "euler")
    times = paths.LINEAR.time(sigmas)
    flowing = geodiff.sample(exact, noise / (1 + sigmas[0]), times, "euler", path=paths.LINEAR)
    torch.testing.assert_close(flowing.states, expanding.states / (1 + sigmas)[:, None, None], rtol=0, atol=1e-14)
    torch.testing.assert_close(flowing.denoised, expanding.denoised, rtol=0, atol=1e-13)


def test_from_pure_noise_and_from_the_middle() -> None:
    data = field.points().float()
    denoiser = geodiff.OptimalDenoiser(data)
    noise = torch.randn(16, 6)
    whole = geodiff.sample(denoiser, noise, paths.times(40), path=paths.LINEAR)
    torch.testing.assert_close(whole.denoised[0], denoiser.mean.expand(16, 6))
    assert torch.cdist(whole.states[-1], data).amin(1).max() < 1e-4
    rest = geodiff.sample(denoiser, whole.states[25], paths.times(40)[25:], path=paths.LINEAR)
    torch.testing.assert_close(rest.states, whole.states[25:])


@pytest.mark.parametrize(
    "path", [paths.Linear("B"), paths.Cosine(), paths.Cosine("B"), paths.VP(), paths.Polynomial("B")]
)
@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("midpoint", 2)])
def test_orders(path: Path, solver: str, order: int) -> None:
    """Against the exact flow of two points, known in sigma: Phi((y - 1)/sigma) + Phi((y + 1)/sigma) is constant."""
    two = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        return reference.denoise(x, two, sigma)

    high, low = path.time(3.0), path.time(0.7)  # from x(3) = .396385, x(.7) = .237493 of x(80) = 10
    start = path.at(high).alpha * torch.tensor([[0.396385]], dtype=torch.float64)
    errors = []
    for steps in (8, 16):
        times = torch.lerp(high, low, torch.linspace(0, 1, steps + 1, dtype=torch.float64))
        end = geodiff.sample(denoiser, start, times, solver, path=path).states[-1] / path.at(low).alpha
        errors.append(abs(float(end) - _exact_end()))
    ratio = errors[0] / errors[1]
    assert 2**order * 0.7 < ratio < 2**order * 1.6, (path, solver, errors)


def _exact_end() -> float:
    """x(0.7) of the flow through x(3) = 0.396385, by bisection."""

    def conserved(x: float, sigma: float) -> float:
        return float(sum(torch.special.ndtr(torch.tensor((x - p) / sigma, dtype=torch.float64)) for p in (1, -1)))

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if conserved(middle, 0.7) < conserved(0.396385, 3.0) else (low, middle)
    return low


@pytest.fixture(scope="module")
def fine() -> Tensor:
    """Where 800 steps end."""
    return geodiff.sample(exact, field.noise(), paths.times(800), "heun", path=paths.LINEAR).states[-1]


@pytest.mark.parametrize("solver", [name for name in geodiff.solvers.SOLVERS if name != "one-parameter"])
def test_every_solver_flows_on_the_linear_path(solver: str, fine: Tensor) -> None:
    end = geodiff.sample(exact, field.noise(), paths.times(200), solver, path=paths.LINEAR).states[-1]
    torch.testing.assert_close(end, fine, rtol=0, atol=0.02)


def test_a_step_is_dx_dt() -> None:
    """A small Euler step on every path is along the velocity."""
    for path in (
        paths.Linear("B"),
        paths.Cosine(),
        paths.VP("B"),
        paths.Sigmoid(),
        paths.LinearVP(),
        paths.Polynomial(),
    ):
        t, later = (0.5, 0.4999) if path.convention == "A" else (0.5, 0.5001)
        x = field.at(t, path)
        made = geodiff.sample(exact, x, [t, later], "euler", path=path)
        v = reference.velocity(x, field.points(), t, path=path)
        torch.testing.assert_close((made.states[1] - x) / (later - t), v, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(made.denoised[0], path.at(t).denoised(x, v), rtol=1e-9, atol=1e-9)


def test_conditions_are_passed_on() -> None:
    data = field.points().float()
    denoiser = geodiff.OptimalDenoiser(data, labels=torch.arange(8) % 2)
    noise, asked, left_out = torch.randn(6, 6), torch.tensor([0, 1, 0, 1, 0, 1]), torch.tensor([2, 1, -1, 3, 0, 7])
    for options in ({"path": paths.LINEAR}, {}):
        start, grid = (noise, paths.times(60)) if options else (80 * noise, schedules.karras(60))
        conditions = {"class_labels": asked, "exclude": left_out}
        end = geodiff.sample(denoiser, start, grid, "euler", conditions=conditions, **options).states[-1]
        distance, index = torch.cdist(end, data).min(1)
        assert distance.max() < 1e-3
        assert torch.equal(index % 2, asked)
        assert (index != left_out).all()


def test_a_callback_is_told_times() -> None:
    told: list[float] = []
    times = paths.times(4, convention="B")
    path = paths.Linear("B")
    geodiff.sample(exact, field.noise(), times, "euler", callback=lambda s, t, x, r: told.append(t), path=path)
    assert told == times[:-1].tolist()


def test_what_is_kept_says_which_path() -> None:
    found = geodiff.sample(exact, field.noise(), paths.times(3), "euler", path=paths.LINEAR)
    assert found.metadata["path"] == "Linear(convention='A')"
    assert found.metadata["evaluations"] == "3"
    for (t, later), x, r, following in zip(
        itertools.pairwise(found.sigmas.tolist()), found.states, found.denoised, found.states[1:], strict=False
    ):
        torch.testing.assert_close(following, x + (later - t) * (x - r) / t)


@pytest.mark.parametrize(
    ("times", "path", "solver", "message"),
    [
        (
            [0.2, 0.5],
            paths.Linear(),
            "euler",
            "sigmas: expected times of the path Linear A that fall strictly, found 0.2",
        ),
        ([0.5, 0.2], paths.Linear("B"), "euler", "sigmas: expected times of the path Linear B that rise strictly"),
        ([0.0, 1.2], paths.Linear("B"), "euler", "t: expected a time, found 1.2"),
        ([0.5, 0.0, -0.1], paths.Linear(), "euler", "t: expected a time, found -0.1"),
        (
            [1.0, 0.5],
            paths.Sigmoid(),
            "euler",
            "sigmas: expected times at which the path Sigmoid A has a velocity, found 1",
        ),
        ([1.0, 0.5], paths.Cosine(), "dpmpp2m", "solver: expected one that follows any path, found 'dpmpp2m'; allowed"),
    ],
)
def test_bad_arguments(times: list[float], path: Path, solver: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        geodiff.sample(exact, field.noise(), times, solver, path=path)
