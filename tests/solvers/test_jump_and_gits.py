"""ODE-Jump, the analytical first step, and the schedule search of GITS."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from geodiff import schedules
from geodiff.analytic import GaussianDenoiser
from geodiff.solvers import SOLVERS, gits, gits_costs, gits_schedule, gits_search, jump_levels, ode_jump, sample

LEVELS = [8.0, 3.0, 0.5, 0.0]


def curved(x: Tensor, sigma: Tensor) -> Tensor:
    """Two clusters in each coordinate; curved enough that a schedule matters."""
    return torch.tanh(2 * x / (0.2 + sigma**2))


def noise(b: int = 16, d: int = 6) -> Tensor:
    return LEVELS[0] * torch.randn(b, d, dtype=torch.float64)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("sigma", [8.0, 3.0, 1.7, 0.5, 0.2])
def test_a_jump_returns_what_the_denoiser_says_there(solver: str, sigma: float) -> None:
    calls: list[float] = []

    def counted(x: Tensor, level: Tensor) -> Tensor:
        calls.append(level.item())
        return curved(x, level)

    start = noise()
    jumped = ode_jump(counted, start, LEVELS, sigma, solver)
    assert jumped.sigmas.tolist() == [*(level for level in LEVELS if level > sigma), sigma, 0.0]
    x = jumped.states[-2]
    assert torch.equal(jumped.states[-1], curved(x, x.new_tensor(sigma)))
    above = jumped.sigmas[:-1]
    if len(above) > 1:  # the evaluations of the solver down to sigma, and one
        solved = sample(curved, start, above, solver)
        assert torch.equal(solved.states[-1], x)
        assert len(calls) == int(solved.metadata["evaluations"]) + 1
    assert calls[-1] == sigma


def test_along_one_trajectory_jumps_are_the_denoising_trajectory() -> None:
    start = noise()
    trajectory = sample(curved, start, LEVELS, "heun")
    for step, sigma in enumerate(LEVELS[:-1]):
        assert torch.equal(ode_jump(curved, start, LEVELS, sigma).states[-1], trajectory.denoised[step])


@pytest.mark.parametrize("sigma", [0.0, -1.0, 9.0, float("nan")])
def test_a_jump_from_outside_the_schedule(sigma: float) -> None:
    with pytest.raises(ValueError, match=r"^sigma: expected .* found .*; allowed 0 < sigma <= 8"):
        jump_levels(LEVELS, sigma)


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_the_analytical_first_step_saves_one_evaluation(solver: str) -> None:
    start = noise()
    whole = sample(curved, start, LEVELS, solver)
    saved = sample(curved, start, LEVELS, solver, afs=True)
    assert int(saved.metadata["evaluations"]) == int(whole.metadata["evaluations"]) - 1
    assert saved.metadata["first_step"] == "analytical"
    assert not saved.denoised[0].any()
    euler_step = sample(curved, start, LEVELS, "euler", afs=True).states[1]
    assert torch.allclose(euler_step, start + (3 - 8) * start / 8, rtol=1e-14)


def test_the_analytical_first_step_needs_a_second() -> None:
    with pytest.raises(ValueError, match=r"^afs: expected .* found one step; allowed"):
        sample(curved, noise(), [8.0, 0.0], afs=True)


def test_costs_are_what_euler_misses_by() -> None:
    trajectory = sample(curved, noise(), [8.0, 3.0, 1.0, 0.5], "heun")
    costs = gits_costs(trajectory)
    for i, j in itertools.product(range(4), repeat=2):
        if j <= i:
            assert costs[i, j] == torch.inf
            continue
        x, sigma = trajectory.states[i], trajectory.sigmas[i]
        guess = x + (trajectory.sigmas[j] - sigma) * (x - trajectory.denoised[i]) / sigma
        assert costs[i, j].item() == pytest.approx((guess - trajectory.states[j]).norm(dim=1).mean().item(), abs=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 7])
def test_the_dynamic_programme_finds_the_best_path_of_all(steps: int) -> None:
    points, gamma = 8, 1.15
    costs = torch.rand(points, points, dtype=torch.float64)
    costs = torch.where(torch.ones(points, points).triu(1) > 0, costs, torch.inf)

    def total(path: tuple[int, ...]) -> float:
        return sum(gamma**k * costs[i, j].item() for k, (i, j) in enumerate(itertools.pairwise(path)))

    inner = itertools.combinations(range(1, points - 1), steps - 1)
    best = min(((0, *chosen, points - 1) for chosen in inner), key=total)
    sigmas = torch.linspace(8, 1, points)
    assert gits_schedule(sigmas, costs, steps, gamma=gamma).tolist() == sigmas[list(best)].tolist()


def test_gits_beats_the_karras_grid() -> None:
    """On Gaussian data with the falling spectrum of pictures, whose solution is known."""
    variances = 4 / torch.arange(1, 33, dtype=torch.float64).square()
    denoiser = GaussianDenoiser(torch.zeros_like(variances), torch.eye(32, dtype=torch.float64), variances)
    fresh = 80 * torch.randn(32, 32, dtype=torch.float64)
    truth = denoiser.trajectory(fresh, [80.0, 0.002]).states[-1]
    teacher = sample(denoiser, 80 * torch.randn(16, 32, dtype=torch.float64), schedules.karras(61)[:-1], "euler")
    costs = gits_costs(teacher)
    for steps in (6, 10):
        found = gits_schedule(teacher.sigmas, costs, steps)
        assert found.shape == (steps + 1,)
        assert found[[0, -1]].tolist() == [80.0, 0.002]
        even = schedules.karras(steps + 1)[:-1]
        solved = [sample(denoiser, fresh, levels, "euler").states[-1] for levels in (found, even)]
        errors = [(states - truth).norm(dim=1).mean() for states in solved]
        assert errors[0] < 0.8 * errors[1]


def test_gits_in_one_call() -> None:
    start = noise(4)
    teacher = sample(curved, start, schedules.karras(61, 0.02, 8.0)[:-1], "euler")
    expected = gits_schedule(teacher.sigmas, gits_costs(teacher), 3, gamma=1.3)
    found = gits(curved, start, 3, teacher_sigmas=teacher.sigmas, teacher_solver="euler", gamma=1.3)
    assert torch.equal(found, expected)


def test_gits_takes_the_best_gamma() -> None:
    teacher = sample(curved, noise(4), schedules.karras(61, 0.02, 8.0)[:-1], "heun")

    def missed(levels: Tensor) -> float:
        end = sample(curved, teacher.states[0], levels, "euler").states[-1]
        return (end - teacher.states[-1]).flatten(1).double().norm(dim=1).mean().item()

    gammas = (0.3, 1.0, 3.0)
    errors = [missed(gits_schedule(teacher.sigmas, gits_costs(teacher), 4, gamma=gamma)) for gamma in gammas]
    assert len(set(errors)) > 1
    levels, gamma = gits_search(curved, teacher, 4, gamma=gammas)
    assert gamma == gammas[errors.index(min(errors))]
    assert missed(levels) == min(errors)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("steps", lambda: gits_schedule(torch.linspace(3, 1, 3), torch.zeros(3, 3), 0)),
        ("steps", lambda: gits_schedule(torch.linspace(3, 1, 3), torch.zeros(3, 3), 3)),
        ("gamma", lambda: gits(curved, noise(2), 2, gamma=[])),
        ("gamma", lambda: gits_schedule(torch.linspace(3, 1, 3), torch.zeros(3, 3), 1, gamma=0)),
        ("costs", lambda: gits_schedule(torch.linspace(3, 1, 3), torch.zeros(2, 3), 1)),
        ("costs", lambda: gits_schedule(torch.linspace(3, 1, 3), torch.full((3, 3), torch.nan), 1)),
        ("noise", lambda: gits(curved, noise(0), 2, gamma=1.0)),
        ("teacher", lambda: gits_search(curved, sample(curved, noise(2), LEVELS, keep="end"), 2)),
        ("teacher", lambda: gits_search(curved, sample(curved, noise(0), LEVELS), 2, gamma=1.0)),
        ("trajectory", lambda: gits_costs(sample(curved, noise(2), LEVELS, keep="end"))),
    ],
)
def test_bad_arguments_are_named(name: str, call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected .* found .*; allowed "):
        call()
