"""k(sigma): the published tables, nearest levels, files, and calibration that finds the k a network was made with."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import geodiff
from geodiff import LocalDenoiser
from geodiff.analysis.calibration import calibrate
from geodiff.cli.commands import app
from geodiff.learned import LearnedDenoiser, UNetConfig
from geodiff.local import PatchSchedule, published
from geodiff.local.schedules import COSINE, PUBLISHED


def test_the_levels_of_the_tables() -> None:
    some = {0: 0.07807, 4: 0.41057, 9: 0.98761, 14: 2.35178, 18: 11.03387, 19: 80.20994}
    for place, sigma in some.items():
        assert COSINE[place] == pytest.approx(sigma, abs=1e-5 if sigma < 10 else 1e-4)


def test_the_tables() -> None:
    for name, schedule in PUBLISHED.items():
        assert len(schedule.sigmas) == (18 if "pspc" in name else 20)
        assert list(schedule.patches) == sorted(schedule.patches), f"{name}: windows grow with the noise"
    unet = published("cifar10_unet_zeros")
    assert [unet(sigma) for sigma in (1e-3, 0.41, 0.99, 11.0, 80.0, 1e3)] == [3, 5, 7, 17, 25, 25]
    square = published("cifar10_pspc_square")
    assert [square(sigma) for sigma in geodiff.schedules.karras(18)[:-1].tolist()] == [
        *[32] * 7, 23, 15, 11, 7, 5, *[3] * 6,
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"^name: expected a published schedule, found 'imagenet'; allowed \['cifar10"):
        published("imagenet")


def test_the_nearest_level_is_taken() -> None:
    middle = math.sqrt(0.5 * 8)  # in log sigma; (0.5 + 8) / 2 = 4.25 in sigma
    assert PatchSchedule((0.5, 8.0), (3, 9))(0.99 * middle) == 3
    assert PatchSchedule((0.5, 8.0), (3, 9))(1.01 * middle) == 9
    assert PatchSchedule((0.5, 8.0), (3, 9), linear=True)(4.24) == 3
    assert PatchSchedule((0.5, 8.0), (3, 9), linear=True)(4.26) == 9
    assert PatchSchedule((0.5, 8.0), (3, 9)).at_most(5)(80.0) == 5


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("sigma", [0, -1, math.inf, math.nan])
def test_levels_that_are_none_are_refused(sigma: float, linear: bool) -> None:
    with pytest.raises(ValueError, match=r"^sigma: expected a number in range, found .*; allowed sigma > 0"):
        PatchSchedule((0.5, 8.0), (3, 9), linear=linear)(sigma)


def test_files(tmp_path: Path) -> None:
    schedule = PatchSchedule((0.1, 1.0), (3, 7), source="here")
    schedule.save(tmp_path / "k.json")
    assert PatchSchedule.load(tmp_path / "k.json") == schedule
    (tmp_path / "bad.json").write_text('{"sigmas": [1]}')
    with pytest.raises(geodiff.DataError, match=r"bad\.json: expected a schedule of patches"):
        PatchSchedule.load(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("sigmas", "patches", "message"),
    [
        ((1.0, 0.5), (3, 5), r"^sigmas: expected rising levels"),
        ((0.5, 1.0), (3,), r"^patches: expected one for each level, found 1 for 2"),
        ((0.5, 1.0), (3, 0), r"^patches: expected an integer in range, found 0"),
    ],
)
def test_bad_schedules_are_refused(sigmas: tuple[float, ...], patches: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PatchSchedule(sigmas, patches)


def test_calibration_finds_the_windows_of_a_local_denoiser() -> None:
    data = torch.randint(0, 256, (12, 1, 6, 6), dtype=torch.uint8)
    right = PatchSchedule((0.3, 3.0), (3, 5))
    network = LocalDenoiser(data, patch=right)
    sigmas = [8.0, 3.0, 1.5, 0.6, 0.3, 0.0]
    seen: list[int] = []

    def local(k: int) -> LocalDenoiser:
        seen.append(k)
        return LocalDenoiser(data, patch=k)

    noise = 8 * torch.randn(5, 1, 6, 6)
    found = calibrate(lambda x, sigma: network(x, sigma), local, noise, sigmas, (7, 3, 5))
    assert seen == [3, 5, 7]
    assert found.schedule.sigmas == (0.3, 0.6, 1.5, 3.0, 8.0)
    assert found.schedule.patches == (3, 3, 5, 5, 5)
    assert found.best.shape == (5, 5)
    own = found.cosines[[0, 1, 2], 1]  # k = 5 where the network has it
    torch.testing.assert_close(own, torch.ones_like(own), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"^patches, noise: "):
        calibrate(lambda x, sigma: x, local, noise, sigmas, ())


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Net(LearnedDenoiser):
        def forward(self, x: Tensor, sigma: float | Tensor, class_labels: Tensor | None = None) -> Tensor:
            return LocalDenoiser(points)(x, sigma)

    points = torch.randint(0, 256, (9, 1, 6, 6), dtype=torch.uint8)
    np.save(tmp_path / "points.npy", points.numpy())
    network = Net((1, 6, 6), UNetConfig(1, width=8)).eval()
    monkeypatch.setattr(geodiff.learned, "load", lambda _: network)
    given = ["--net", "it", "--data", str(tmp_path / "points.npy"), "--num", "2", "--steps", "4", "--patch", "3"]
    done = CliRunner().invoke(app, ["calibrate", *given, "--patch", "5", "--out", str(tmp_path / "k.json"), "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["levels"]
    assert [row["patch"] for row in rows] == list(PatchSchedule.load(tmp_path / "k.json").patches)
    assert rows[0]["cosine"].keys() == {"3", "5"}
    done = CliRunner().invoke(app, ["calibrate", *given, "--kind", "pca"])
    assert done.exit_code != 0
    assert "patch: expected with a kind that takes it, found 'pca'" in f"{done.output}{done.exception}"
