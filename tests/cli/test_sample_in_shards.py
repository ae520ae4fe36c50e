"""`geodiff sample --out FOLDER`: files that are whole or not there, and the same bits whatever happened on the way."""

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import geodiff
from geodiff.base.errors import DataError
from geodiff.denoiser.along_trajectory import AlongTrajectory
from geodiff.solvers import latest_levels
from geodiff.solvers.loop import Walk
from geodiff.solvers.shards import Shards, noise_of
from tests.cli.endings import contents, last
from tests.processes import run, started

ARGUMENTS = ["sample", "--data", "digits", "--num", 24, "--shard", 4, "--steps", 40, "--threads", 1, "--out"]
FILES = 6


def named_in(folder: Path) -> int:
    return sum(not name.startswith(".") for name in contents(folder))


def killed(times: int, tmp_path: Path) -> None:
    """Each time when a random number of files is there, and a random part of the time that one takes later."""
    made = run(*ARGUMENTS, tmp_path / "whole", "--json")
    assert made.returncode == 0, made.stderr
    each = json.loads(made.stdout)["seconds"] / FILES
    chance, stopped = random.Random(0), 0
    for trial in range(times):
        with started(*ARGUMENTS, tmp_path / "cut") as running:
            wanted = chance.randint(min(named_in(tmp_path / "cut"), FILES - 1), FILES - 1)
            while named_in(tmp_path / "cut") < wanted and running.process.exitcode is None:
                time.sleep(0.01)
            time.sleep(chance.uniform(0, each))
            running.send_signal(signal.SIGKILL)
            running.communicate(60)
        stopped += running.process.exitcode == -signal.SIGKILL
        found = contents(tmp_path / "cut")
        named = [name for name in found if not name.startswith(".")]
        for name in named:
            assert found[name] == (tmp_path / "whole" / name).read_bytes(), (trial, name)
        if len(named) == FILES + 1:  # all is there: begin anew, so that each kill finds work
            for name in found:
                (tmp_path / "cut" / name).unlink()
    ended = run(*ARGUMENTS, tmp_path / "cut")
    assert ended.returncode == 0, ended.stderr
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert stopped > 0, "no run was still going when it was killed"


def test_a_run_that_was_killed_goes_on(tmp_path: Path) -> None:
    killed(3, tmp_path)


@pytest.mark.heavy
def test_20_runs_that_were_killed_go_on(tmp_path: Path) -> None:
    killed(20, tmp_path)


DENOISER = geodiff.OptimalDenoiser(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)))
SIGMAS = geodiff.schedules.karras(4)


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    shards = Shards(tmp_path / "out", 10, SIGMAS, size=4)
    assert shards.run(DENOISER) == 3
    before = contents(shards.folder)
    assert [np.load(shards.path(k)).shape for k in range(3)] == [(4, 3), (4, 3), (2, 3)]
    assert shards.run(DENOISER) == 0
    shards.path(1).unlink()
    assert shards.run(DENOISER) == 1
    assert contents(shards.folder) == before


class Stops:
    """Counts the evaluations of every denoiser, and raises at the one that `left` counts down to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, self.made, combine = -1, 0, AlongTrajectory.combine

        def counted(*args: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            self.made += 1
            return combine(*args)

        monkeypatch.setattr(AlongTrajectory, "combine", counted)


@pytest.mark.parametrize("solver", geodiff.solvers.SOLVERS)
@pytest.mark.parametrize(("n", "afs"), [(20, False), (20, True), (400, False)])
def test_it_goes_on_inside_of_a_file(
    solver: str, n: int, afs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latest_levels, "EVERY", 0.0)
    sigmas = geodiff.schedules.karras(9)
    whole = Shards(tmp_path / "whole", 5, sigmas, solver, afs)
    # 400 points of 50 numbers: evaluations remember
    denoiser = geodiff.OptimalDenoiser(torch.randn(n, 3 if n == 20 else 50, generator=torch.Generator().manual_seed(0)))
    evaluations = Stops(monkeypatch)
    whole.run(denoiser)
    expected, count = contents(whole.folder), evaluations.made
    assert count >= 8
    for after in range(2, count, 1 if n == 20 else 3):
        cut = Shards(tmp_path / f"cut{after}", 5, sigmas, solver, afs)
        evaluations.left = after
        with pytest.raises(KeyboardInterrupt):
            cut.run(denoiser)
        evaluations.made = 0
        cut.run(denoiser)
        assert contents(cut.folder) == expected
        lost = latest_levels.STRIDE * (2 if count > 9 else 1)
        assert evaluations.made <= count - after + 1 + lost, "levels that were known are computed again"


def test_levels_that_will_not_do_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latest_levels, "EVERY", 0.0)
    Shards(tmp_path / "whole", 5, SIGMAS).run(DENOISER)
    folder = tmp_path / "out"
    folder.mkdir()
    other = latest_levels.LatestLevels(folder / ".level-00000.safetensors")
    for number in (0, 1):
        if number == 0:
            other.path.write_bytes(b"nothing")
        else:
            other.write(4, Walk((1.0,) * 6, torch.zeros(6, 4, 3), torch.zeros(5, 4, 3)))  # of fewer samples
        Shards(folder, 5, SIGMAS).run(DENOISER)
        assert contents(folder) == contents(tmp_path / "whole")
        Shards(folder, 5, SIGMAS).path(0).unlink()


def test_samples_are_those_of_sample(tmp_path: Path) -> None:
    shards = Shards(tmp_path / "out", 6, SIGMAS, size=4, seed=3)
    shards.run(DENOISER)
    noise = noise_of(range(4, 6), (3,), 3) * SIGMAS[0]
    expected = geodiff.sample(DENOISER, noise, SIGMAS).states[-1]
    assert np.array_equal(np.load(shards.path(1)), expected.numpy())
    assert torch.equal(noise_of(range(6), (3,), 3)[4:], noise_of(range(4, 6), (3,), 3))
    assert not torch.equal(noise_of(range(6), (3,), 3), noise_of(range(6), (3,), 4))


def test_other_settings_or_data_are_refused(tmp_path: Path) -> None:
    Shards(tmp_path / "out", 4, SIGMAS).run(DENOISER)
    with pytest.raises(ValueError, match="begun with seed = 0, found 1"):
        Shards(tmp_path / "out", 4, SIGMAS, seed=1).run(DENOISER)
    with pytest.raises(ValueError, match="begun with num = 4, found 5"):
        Shards(tmp_path / "out", 5, SIGMAS).run(DENOISER)
    with pytest.raises(ValueError, match="begun with rows"):
        Shards(tmp_path / "out", 4, SIGMAS).run(geodiff.OptimalDenoiser(torch.zeros(20, 3)))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "data-00000-of-00001.npy").touch()
    with pytest.raises(ValueError, match=r"^out: expected an empty folder"):
        Shards(tmp_path / "other", 4, SIGMAS).run(DENOISER)


def test_a_folder_of_the_users_own_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    for i in range(10):
        (tmp_path / "img" / f"{i}.png").touch()
    ended = run("sample", "--data", "nowhere", "--out", "img", folder=tmp_path)
    assert (ended.returncode, last(ended)) == (
        2,
        "error: --out: expected an empty folder or one with sampling.json, found 0.png and 9 more without it in img; "
        "allowed a new name",
    )
    with pytest.raises(ValueError, match=r"^out: expected an empty folder .* found 0\.png"):
        Shards(tmp_path / "img", 4, SIGMAS).run(DENOISER)
    assert len(contents(tmp_path / "img")) == 10


def test_what_a_kill_left_before_the_notes_is_no_stranger(tmp_path: Path) -> None:
    (tmp_path / ".sampling.1-0a1b2c3d.part.json").touch()
    assert Shards(tmp_path, 4, SIGMAS).run(DENOISER) == 1


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    shards = Shards(tmp_path / "out", 4, SIGMAS)
    shards.run(DENOISER)
    shards.path(0).write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"data-00000-of-00001\.npy"):
        shards.run(DENOISER)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--images", "s.png"], "--images: found where it does nothing; allowed only where --out is a file"),
        (["--shard", "0"], "--shard: expected an integer"),
        (["--num", "0"], "--num: expected an integer"),
    ],
)
def test_bad_input_is_named(arguments: list[str], expected: str, tmp_path: Path) -> None:
    ended = run("sample", "--data", "digits", "--out", "samples", *arguments, folder=tmp_path)
    assert ended.returncode != 0
    assert expected in ended.stderr
