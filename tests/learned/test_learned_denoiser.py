"""The learned denoiser: its preconditioning, its shapes, and the weights that ship."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from geodiff import OptimalDenoiser, learned
from geodiff.base.errors import DataError
from geodiff.data import load
from geodiff.learned import LearnedDenoiser, UNetConfig, noise_levels
from geodiff.learned.denoiser import coefficients
from geodiff.reference import model_space
from geodiff.schedules import karras
from geodiff.solvers import gits, sample

SMALL = UNetConfig(1, width=8)
LARGEST_FILE = 8_000_000


def disturbed(shape: tuple[int, int, int], config: UNetConfig) -> LearnedDenoiser:
    """A network whose layers that start at 0 do something."""
    denoiser = LearnedDenoiser(shape, config)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return denoiser.eval().requires_grad_(False)


def test_coefficients_are_those_of_edm() -> None:
    skip, out, scale, c = coefficients(torch.tensor([0.5, 2.0], dtype=torch.float64))
    assert skip.tolist() == pytest.approx([0.5, 0.25 / 4.25])
    assert out.tolist() == pytest.approx([0.25 / math.sqrt(0.5), 1 / math.sqrt(4.25)])
    assert scale.tolist() == pytest.approx([1 / math.sqrt(0.5), 1 / math.sqrt(4.25)])
    assert c.tolist() == pytest.approx([math.log(0.5) / 4, math.log(2) / 4])


def test_weight_makes_errors_of_the_raw_network_count_alike() -> None:
    sigma = torch.tensor([0.002, 0.5, 80.0], dtype=torch.float64)
    torch.testing.assert_close(noise_levels.weight(sigma) * coefficients(sigma)[1].square(), torch.ones_like(sigma))


def test_an_untrained_network_answers_c_skip_x() -> None:
    x = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(LearnedDenoiser((1, 8, 8), SMALL)(x, 0.5), 0.5 * x)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 7), (2, 28, 28), (1, 1, 1)])
def test_every_picture_size_is_taken(shape: tuple[int, int, int]) -> None:
    denoiser = disturbed(shape, UNetConfig(shape[0], width=8))
    x = torch.randn(2, *shape)
    assert denoiser(x, 1.0).shape == x.shape
    assert torch.isfinite(denoiser(x, 1.0)).all()
    assert denoiser(x[:0], 1.0).shape == (0, *shape)


def test_a_level_for_each_query_is_a_query_at_each_level() -> None:
    denoiser, x = disturbed((1, 8, 8), SMALL), torch.randn(3, 1, 8, 8)
    sigma = torch.tensor([0.1, 2.0, 50.0])
    together = denoiser(x, sigma)
    for row, level in enumerate(sigma):
        torch.testing.assert_close(together[row : row + 1], denoiser(x[row : row + 1], level))
    torch.testing.assert_close(together, denoiser(x, sigma.reshape(3, 1, 1, 1)))
    assert denoiser(x.double(), 1.0).dtype == torch.float64


def test_features_are_one_row_per_picture_and_depend_on_it() -> None:
    denoiser, x = disturbed((1, 8, 8), SMALL), torch.randn(3, 1, 8, 8)
    features = denoiser.features(x, 0.5)
    assert features.shape == (3, 16)
    torch.testing.assert_close(features[1:2], denoiser.features(x[1:2], 0.5))
    assert (features[0] - features[1]).abs().max() > 1e-3


def test_bad_arguments_are_named() -> None:
    denoiser = LearnedDenoiser((1, 8, 8), SMALL)
    x = torch.randn(1, 1, 8, 8)
    with pytest.raises(ValueError, match=r"^x: "):
        denoiser(torch.randn(1, 1, 9, 8), 1.0)
    with pytest.raises(ValueError, match=r"^sigma: "):
        denoiser(x, 0.0)
    with pytest.raises(ValueError, match=r"^class_labels: "):
        denoiser(x, 1.0, torch.zeros(1))
    with pytest.raises(ValueError, match=r"^width: "):
        UNetConfig(1, width=12)
    with pytest.raises(ValueError, match=r"^shape: "):
        LearnedDenoiser((8, 8))
    with pytest.raises(ValueError, match=r"^config: "):
        LearnedDenoiser((3, 8, 8), SMALL)


def test_noise_levels_mix_the_normal_and_the_even_part() -> None:
    generator = torch.Generator().manual_seed(0)
    normal = noise_levels.draw(20_000, 0.0, generator).log()
    assert abs(normal.mean() + 1.2) < 0.04
    assert abs(normal.std() - 1.2) < 0.03
    even = noise_levels.draw(20_000, 1.0, generator)
    assert even.min() >= 0.002 * (1 - 1e-5)
    assert even.max() <= 100 * (1 + 1e-5)
    high = math.log(10) / math.log(100 / 0.002)
    assert abs(float((even > 10).float().mean()) - high) < 0.015


def test_weights_come_back_in_half_precision(tmp_path: Path) -> None:
    denoiser, x = disturbed((1, 8, 8), SMALL), torch.randn(2, 1, 8, 8)
    learned.save(denoiser, tmp_path / "net.safetensors", {"data": "noise"})
    again = learned.load(tmp_path / "net.safetensors")
    torch.testing.assert_close(again(x, 1.0), denoiser(x, 1.0), rtol=0, atol=5e-3)
    assert again.training_metadata == {"data": "noise"}
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="mnist5k"):
        learned.load(tmp_path / "none.safetensors")
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, other)
    with pytest.raises(DataError, match=r"not weights"):
        learned.load(other)
    learned.save(LearnedDenoiser((1, 8, 8), SMALL), other)
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(other.read_bytes()[:-100])
    with pytest.raises(DataError, match="damaged"):
        learned.load(torn)


def test_shipped_weights_are_small_and_denoise() -> None:
    folder = Path(learned.__file__).parent / "weights"
    assert learned.shipped() == ["mnist5k", "mnist5k-held100"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < LARGEST_FILE
    log = (folder / "mnist5k.log.jsonl").read_text(encoding="utf-8").splitlines()
    denoiser = learned.load("mnist5k")
    assert f'"step": {denoiser.training_metadata["step"]}' in log[-1]

    data = load("mnist5k").data
    points = model_space(data[::157], torch.float32)
    for sigma, share in ((0.3, 0.5), (1.0, 0.2)):  # of the error of c_skip x, the best that knows no picture
        noisy = points + sigma * torch.randn(points.shape)
        error = (denoiser(noisy, sigma) - points).square().mean()
        assert error < share * (noisy * 0.25 / (0.25 + sigma**2) - points).square().mean()
    noisy = points + 30 * torch.randn(points.shape)
    best = OptimalDenoiser(data)(noisy, 30.0)
    apart = (denoiser(noisy, 30.0) - best).flatten(1).norm(dim=1).mean()
    assert apart < 0.1 * (points - points.mean(0)).flatten(1).norm(dim=1).mean()


@pytest.fixture(scope="module")
def ends() -> tuple[LearnedDenoiser, Tensor, Tensor]:
    """The shipped network, noises, and where 40 steps of Heun take them."""
    denoiser = learned.load("mnist5k")
    noises = 80 * torch.randn(2, 8, 1, 28, 28, generator=torch.Generator().manual_seed(0))[1]
    return denoiser, noises, sample(denoiser, noises, karras(41)[:-1], "heun").states[-1]


@pytest.mark.parametrize("steps", [6, 10])
def test_gits_beats_the_karras_grid_on_the_shipped_network(
    steps: int, ends: tuple[LearnedDenoiser, Tensor, Tensor]
) -> None:
    """Levels searched on other noises than they are judged on, against 40 steps of Heun."""
    denoiser, noises, truth = ends
    search = 80 * torch.randn(2, 8, 1, 28, 28, generator=torch.Generator().manual_seed(0))[0]

    def error(levels: Tensor) -> float:
        end = sample(denoiser, noises, levels, "euler").states[-1]
        return (end - truth).flatten(1).norm(dim=1).mean().item()

    assert error(gits(denoiser, search, steps)) < 0.9 * error(karras(steps + 1)[:-1])
