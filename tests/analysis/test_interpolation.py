"""Interpolation of noises: the shell ratios of the paper, and rows decoded by a known flow."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from geodiff import schedules
from geodiff.analysis import interpolation
from geodiff.analytic import GaussianDenoiser

SIGMA, D = 80.0, 3072
WEIGHTS = [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0]


def pair(b: int = 64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    z1, z2 = SIGMA * torch.randn(2, b, 3, 32, 32, generator=generator)
    return z1, z2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ratios_to_the_shell(dtype: torch.dtype) -> None:
    z1, z2 = (z.to(dtype) for z in pair(256))
    mean = {
        name: interpolation.shell_ratio(how(z1, z2, WEIGHTS), SIGMA).mean(1)
        for name, how in interpolation.INTERPOLATIONS.items()
    }
    for weight, published in ((0.1, 0.9052), (0.3, 0.7612), (0.5, 0.7067)):
        for w in (weight, 1 - weight):
            index = next(i for i, known in enumerate(WEIGHTS) if math.isclose(known, w))
            assert mean["linear"][index].item() == pytest.approx(math.hypot(1 - w, w), abs=1e-3)
            assert mean["linear"][index].item() == pytest.approx(published, abs=1e-3)
    for name in ("slerp", "rescaled"):
        assert mean[name].tolist() == pytest.approx([0.9995] * 7, abs=1e-3)


@pytest.mark.parametrize("name", sorted(interpolation.INTERPOLATIONS))
def test_ends_are_the_two_noises(name: str) -> None:
    z1, z2 = pair(3)
    found = interpolation.INTERPOLATIONS[name](z1, z2, [0.0, 1.0])
    assert torch.allclose(found[0], z1, atol=1e-4)
    assert torch.allclose(found[1], z2, atol=1e-4)


def test_slerp_is_the_arc_between_unit_vectors() -> None:
    angle = torch.tensor(1.1, dtype=torch.float64)
    z1 = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    z2 = torch.stack([angle.cos(), angle.sin()])[None]
    found = interpolation.slerp(z1, z2, [0.25, 0.5])
    for row, share in zip(found, (0.25, 0.5), strict=True):
        assert torch.allclose(row, torch.stack([(share * angle).cos(), (share * angle).sin()])[None])


def test_slerp_between_parallel_noises_is_linear() -> None:
    z1, _ = pair(2)
    assert torch.allclose(interpolation.slerp(z1, 2 * z1, WEIGHTS), interpolation.linear(z1, 2 * z1, WEIGHTS))


def test_rescaled_keeps_the_variance_of_each_number() -> None:
    z1, z2 = torch.randn(2, 1, 1_000_000)
    assert interpolation.rescaled(z1, z2, [0.2, 0.5]).std(2).flatten().tolist() == pytest.approx([1, 1], abs=5e-3)


@pytest.mark.parametrize("name", sorted(interpolation.INTERPOLATIONS))
def test_rows_are_decoded_latents(name: str) -> None:
    gaussian = GaussianDenoiser(torch.zeros(2, 3).double(), torch.eye(6).double(), torch.arange(6.0).double())
    z1, z2 = SIGMA * torch.randn(2, 4, 2, 3, dtype=torch.float64)
    row = interpolation.decode(gaussian, z1, z2, schedules.karras(150), how=name, points=5)
    assert row.weights.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert row.latents.shape == row.samples.shape == (5, 4, 2, 3)
    assert torch.equal(row.latents, interpolation.INTERPOLATIONS[name](z1, z2, row.weights))
    assert torch.equal(row.ratio, interpolation.shell_ratio(row.latents, SIGMA))
    for latents, samples in zip(row.latents, row.samples, strict=True):
        exact = gaussian.trajectory(latents, [SIGMA, 0.0]).states[-1]
        assert torch.allclose(samples, exact, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "error", "call"),
    [
        ("z1", TypeError, lambda z: interpolation.linear([1.0], z, [0.5])),  # type: ignore[arg-type]
        ("z2", ValueError, lambda z: interpolation.slerp(z, z[:1], [0.5])),
        ("z2", ValueError, lambda z: interpolation.rescaled(z, z.double(), [0.5])),
        ("weights", ValueError, lambda z: interpolation.linear(z, z, [])),
        ("how", ValueError, lambda z: interpolation.decode(lambda x, _: x, z, z, [1.0, 0.0], how="cubic")),
        ("points", ValueError, lambda z: interpolation.decode(lambda x, _: x, z, z, [1.0, 0.0], points=1)),
    ],
)
def test_bad_arguments_are_named(name: str, error: type[Exception], call: Callable[[Tensor], object]) -> None:
    with pytest.raises(error, match=rf"^{name}: expected .* found .*; allowed "):
        call(torch.randn(2, 5))
