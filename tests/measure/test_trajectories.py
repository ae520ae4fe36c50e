"""Trajectories timed: every way to the same samples, and no time for one that breaks the contract."""

import json

import pytest
import torch
from typer.testing import CliRunner

from geodiff import OptimalDenoiser
from geodiff.cli import app
from geodiff.measure.trajectories import TORCH, WALKS, TrajectoryBench, slopes
from geodiff.schedules import karras
from geodiff.solvers import Trajectory, sample

DATA = torch.randint(0, 256, (400, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("solver", [solver for solver, _ in WALKS])
def test_loops_as_others_write_them_end_where_ours_do(solver: str) -> None:
    bench = TrajectoryBench(DATA)
    noise = 80 * torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    ours = sample(bench._plain, noise, karras(12), solver).states[-1]
    torch.testing.assert_close(slopes(bench._plain, noise, karras(12), solver), ours, rtol=1e-3, atol=1e-3)


def test_every_way_is_timed_and_held_to_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    found = TrajectoryBench(DATA, rounds=1, tols=(1e-5, 1e-3)).run("heun", 4, 2)
    assert len(found.ways) == 8
    for way in found.ways:
        assert way.median > 0
        assert found.ratio(way) > 0
        assert not way.error > 1e-3
    assert found.ratio(next(way for way in found.ways if way.name == TORCH)) == 1
    monkeypatch.setattr(
        TrajectoryBench, "_error", lambda self, trajectory: 2e-5 if isinstance(trajectory, Trajectory) else 0
    )
    refused = TrajectoryBench(DATA, rounds=1).run("euler", 3, 2)
    assert [bool(way.milliseconds) for way in refused.ways] == [False, False, False, True, True]
    assert refused.ways[0].note == "breaks the contract: error 2.0e-05"


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_trajectory_that_is_not_finite_has_no_times(monkeypatch: pytest.MonkeyPatch, bad: float) -> None:
    found = sample(OptimalDenoiser(DATA), 80 * torch.randn(2, 1, 8, 8), karras(3))
    assert TrajectoryBench(DATA)._error(found) < 1e-5
    assert found.denoised is not None
    found.denoised[1, 0, 0, 0, 0] = bad
    monkeypatch.setattr("geodiff.measure.trajectories.sample", lambda *_: found)
    refused = TrajectoryBench(DATA, rounds=1).run("heun", 3, 2)
    assert [way.milliseconds for way in refused.ways[:3]] == [[]] * 3
    assert refused.ways[0].note == "breaks the contract: error inf"


def test_on_the_command_line() -> None:
    arguments = ["bench", "--data", "digits", "--trajectory", "--batch", "1", "--rounds", "1", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    walks = json.loads(done.stdout)["walks"]
    assert [(walk["solver"], walk["steps"], walk["batch"]) for walk in walks] == [(*walk, 1) for walk in WALKS]
    assert all(way["median_ms"] > 0 for walk in walks for way in walk["ways"])
