"""What is kept of a trajectory, what it cost, and that verify looks at every evaluation."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from geodiff import OptimalDenoiser, Trajectory, paths, sample, schedules
from geodiff.denoiser.along_trajectory import AlongTrajectory
from geodiff.solvers import SOLVERS, Evaluate, Level, loop, ode_jump
from geodiff.solvers.history import BACK

SIGMAS = schedules.karras(12)


def denoiser(**given: object) -> OptimalDenoiser:
    data = torch.randint(0, 256, (300, 3, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return OptimalDenoiser(data, **given)  # type: ignore[arg-type]


def noise(batch: int = 4) -> Tensor:
    return 80 * torch.randn(batch, 3, 5, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_end_alone_is_the_same_end(solver: str) -> None:
    whole = sample(denoiser(), noise(), SIGMAS, solver)
    end = sample(denoiser(), noise(), SIGMAS, solver, "end")
    assert torch.equal(end.states, whole.states[-1:])
    assert end.denoised is None
    assert end.metadata == whole.metadata
    assert end.states.untyped_storage().nbytes() == end.states.nbytes


def test_so_are_other_denoisers_callbacks_paths_and_short_trajectories() -> None:
    ours, seen = denoiser(), []

    def asked(x: Tensor, sigma: Tensor) -> Tensor:
        return ours(x, sigma)

    for options in (
        {"callback": lambda s, sigma, x, r: seen.append((s, sigma, x.clone(), r.clone()))},
        {"afs": True},
        {"conditions": {"exclude": torch.tensor([1, -1, 2, 3])}},
        {"verify": True},
    ):
        whole = sample(ours, noise(), SIGMAS, **options)
        assert torch.equal(sample(ours, noise(), SIGMAS, keep="end", **options).states[0], whole.states[-1])
    assert [s for s, *_ in seen] == 2 * list(range(12))
    assert all(
        torch.equal(a, b)
        for first, then in zip(seen[:12], seen[12:], strict=True)
        for a, b in zip(first[2:], then[2:], strict=True)
    )
    assert torch.equal(sample(asked, noise(), SIGMAS, keep="end").states[0], sample(asked, noise(), SIGMAS).states[-1])
    times = paths.times(9)
    along = [sample(ours, noise() / 80, times, path=paths.LINEAR, keep=keep).states[-1] for keep in ("all", "end")]
    assert torch.equal(*along)
    for levels in ([3.0, 0.0], [3.0, 1.0], [3.0, 1.0, 0.5]):
        assert torch.equal(
            sample(ours, noise(), levels, keep="end").states[0], sample(ours, noise(), levels).states[-1]
        )
    jumped = [ode_jump(ours, noise(), SIGMAS, 2.0, keep=keep).states[-1] for keep in ("all", "end")]
    assert torch.equal(*jumped)


def test_what_is_kept_does_not_grow_with_the_steps() -> None:
    for steps in (1, 3, 4, 5, 1000):
        places = loop.Places.of(steps, "end")
        assert places.states == places.outputs + 1 <= BACK + 2
        assert loop.Places.of(steps, "all") == (steps + 1, steps)


def test_a_step_of_ones_own_sees_the_latest_levels() -> None:
    lengths = []

    def step(ask: Evaluate, at: Level, sigma_next: float, history: Sequence[Level] = ()) -> Tensor:
        lengths.append(len(history))
        assert [level.sigma for level in history[-BACK:]] == SIGMAS.tolist()[max(0, len(history) - BACK) : len(history)]
        assert at.sigma == SIGMAS[len(history)]
        return torch.lerp(at.denoised, at.x, sigma_next / at.sigma)

    sample(denoiser(), noise(), SIGMAS, step, "end")
    assert lengths == list(range(12))

    def greedy(ask: Evaluate, at: Level, sigma_next: float, history: Sequence[Level] = ()) -> Tensor:
        return history[0].x if history else at.x

    sample(denoiser(), noise(), SIGMAS, greedy)
    with pytest.raises(
        IndexError, match=r'history: expected one of the latest 3 levels with keep="end", found level 0 of 4'
    ):
        sample(denoiser(), noise(), SIGMAS, greedy, "end")


def test_keep_is_named_when_wrong() -> None:
    with pytest.raises(
        ValueError, match=r"keep: expected what to keep of the trajectory, found 'some'; allowed 'all', 'end'"
    ):
        sample(denoiser(), noise(), SIGMAS, keep="some")  # type: ignore[arg-type]


def test_saved_and_read(tmp_path: Path) -> None:
    end = sample(denoiser(), noise(), SIGMAS, keep="end")
    end.save(tmp_path / "end.safetensors")
    read = Trajectory.load(tmp_path / "end.safetensors")
    assert torch.equal(read.states, end.states)
    assert read.denoised is None
    assert read.metadata == end.metadata
    with pytest.raises(
        ValueError, match=r"states: expected shape \[S \+ 1, B, \*shape\] with S = 12 steps, found \[13, "
    ):
        Trajectory(SIGMAS, noise().expand(13, -1, -1, -1), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_every_evaluation_is_accounted_for(backend: str) -> None:
    asked = sample(denoiser(backend=backend), noise(), SIGMAS)
    assert len(asked.cost) == int(asked.metadata["evaluations"]) == 23
    assert [cost.sigma for cost in asked.cost[:3]] == [SIGMAS[0], SIGMAS[1], SIGMAS[1]]
    assert all(sum(cost.paths.values()) == 4 for cost in asked.cost)
    if backend == "cpu":
        assert all(cost.rows >= 4 and cost.error <= 1e-5 for cost in asked.cost)
    else:
        assert all(cost.rows == -1 and math.isnan(cost.error) for cost in asked.cost)


def test_verify_finds_an_evaluation_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = denoiser(tol=1e-3)
    for conditions in ({}, {"exclude": torch.tensor([1, -1, 2, 3])}):
        sample(ours, noise(), SIGMAS, verify=True, conditions=conditions)
    sample(ours, noise(0), SIGMAS, verify=True)

    right, calls = AlongTrajectory.combine, []

    def wrong(self: AlongTrajectory, x: Tensor, sigma: float, gain: float, terms: object, out: Tensor) -> object:
        cost = right(self, x, sigma, gain, terms, out)  # type: ignore[arg-type]
        calls.append(sigma)
        if len(calls) == 4:
            out[2] *= 1.0015
        return cost

    monkeypatch.setattr(AlongTrajectory, "combine", wrong)
    with pytest.raises(
        ArithmeticError, match=r"verify: expected \|r - r64\| <= 0.001 .* in evaluation 4, found 1.5 times"
    ):
        sample(ours, noise(), SIGMAS, verify=True)
    with pytest.raises(
        TypeError, match="verify: expected an OptimalDenoiser, whose r is known in float64, found function"
    ):
        sample(lambda x, sigma: x, noise(), SIGMAS, verify=True)
