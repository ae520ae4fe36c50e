"""Pictures: what is written is a PNG with the right pixels in the right places."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geodiff.output import pictures
from geodiff.solvers.trajectory import Trajectory


def test_grid_places_each_image_row_by_row(tmp_path: Path) -> None:
    levels = torch.tensor([-1.0, 0.0, 1.0])
    pictures.save_grid(tmp_path / "grid.png", levels[:, None, None, None].expand(3, 1, 4, 4), zoom=2)
    pixels = np.asarray(Image.open(tmp_path / "grid.png").convert("L")).astype(int)
    assert pixels.shape == (18, 18)  # two rows of two images of 4 pixels with a gap of 1, doubled
    assert (pixels[:8, :8] == 0).all()
    assert (abs(pixels[:8, 10:] - 127) <= 1).all()
    assert (pixels[10:, :8] == 255).all()
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_grid_keeps_colours_apart(tmp_path: Path) -> None:
    red = torch.tensor([1.0, -1.0, -1.0])[None, :, None, None].expand(1, 3, 5, 5)
    pictures.save_grid(tmp_path / "red.png", red, zoom=1)
    assert (np.asarray(Image.open(tmp_path / "red.png").convert("RGB")) == [255, 0, 0]).all()


@pytest.mark.parametrize("shape", [(3, 28, 28), (28, 28)])
def test_trajectories_of_one_sample_and_one_step(tmp_path: Path, shape: tuple[int, ...]) -> None:
    trajectory = Trajectory(torch.tensor([1.0, 0.0]).double(), torch.randn(2, 1, *shape), torch.randn(1, 1, *shape))
    pictures.save_trajectories(tmp_path / "one.png", trajectory, title="one")
    pixels = np.asarray(Image.open(tmp_path / "one.png").convert("RGB"))
    assert pixels.std() > 10, "the picture is blank"


@pytest.mark.parametrize("shape", [(64,), (2, 8, 8), (1, 3, 8, 8)])
def test_points_that_are_no_pictures(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape: points of shape"):
        pictures.save_grid(tmp_path / "grid.png", torch.zeros(4, *shape))
    assert not list(tmp_path.iterdir())


def test_no_samples(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="images: found none"):
        pictures.save_grid(tmp_path / "grid.png", torch.zeros(0, 1, 8, 8))
    empty = Trajectory(torch.tensor([1.0, 0.0]).double(), torch.zeros(2, 0, 8, 8), torch.zeros(1, 0, 8, 8))
    with pytest.raises(ValueError, match="trajectory: found no samples"):
        pictures.save_trajectories(tmp_path / "grid.png", empty)
