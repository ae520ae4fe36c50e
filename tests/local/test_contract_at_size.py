"""Contract 1 at every pixel over as many images as CIFAR-10 has, on the backend that serves by itself."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geodiff import LocalDenoiser
from geodiff.reference import local
from geodiff.reference.contract import pixel_errors
from geodiff.reference.formula import model_space

LEVELS = torch.tensor([0.02, 0.2, 1.0, 5.0, 40.0], dtype=torch.float64)


@pytest.fixture(scope="module")
def images() -> Tensor:
    """50,000 smooth pictures of 3 x 32 x 32 bytes; the last is the first but for one value."""
    noise = torch.randn(50_000, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    made = torch.empty(len(noise), 3, 32, 32, dtype=torch.uint8)
    for part, into in zip(noise.split(5_000), made.split(5_000), strict=True):
        smooth = F.interpolate(part, size=(32, 32), mode="bilinear")
        into.copy_((128 + 70 * smooth).clamp(0, 255))
    made[-1] = made[0]
    made[-1, 0, 5, 5] ^= 1
    return made


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["ls", "pspc_square"])
@pytest.mark.parametrize("patch", [3, 7, 17])
def test_50_000_images(images: Tensor, kind: str, patch: int) -> None:
    clean = model_space(images[: len(LEVELS)], torch.float32)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    x = clean + LEVELS.float()[:, None, None, None] * noise
    denoiser = LocalDenoiser(images, kind=kind, patch=patch)
    exact = local.posteriors(x.double(), images, LEVELS, denoiser.form(1.0)).mean
    largest = torch.stack([model_space(part, torch.float32).norm(dim=1).amax(0) for part in images.split(5_000)])
    errors = pixel_errors(denoiser(x, LEVELS), exact, largest.amax(0)).flatten(1).amax(1)
    assert bool((errors <= 1e-5).all()), errors.tolist()
