"""Correlations, agreement and mosaics: against what they are defined as."""

import numpy as np
import pytest
import torch

from geodiff import LocalDenoiser, OptimalDenoiser
from geodiff.analysis import locality

DATA = torch.randint(0, 256, (12, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
POINTS = DATA.float() / 127.5 - 1
NOISE = torch.randn(4, 3, 6, 5, generator=torch.Generator().manual_seed(1))


def test_correlation_is_that_of_numpy() -> None:
    a, b = POINTS[:4], POINTS[4:8] + 0.3
    expected = [np.corrcoef(x.numpy().ravel(), y.numpy().ravel())[0, 1] for x, y in zip(a, b, strict=True)]
    torch.testing.assert_close(locality.correlation(a, b), torch.tensor(expected), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(locality.correlation(a, 2 * a + 1), torch.ones(4, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"^b: expected the shape of a"):
        locality.correlation(a, b[:2])


def test_agreement_is_with_the_first() -> None:
    local, optimal = LocalDenoiser(DATA), OptimalDenoiser(DATA)
    ticks: list[int] = []
    denoisers = {"local": local, "optimal": optimal, "zero": lambda x, sigma: torch.zeros_like(x)}
    noisy = torch.stack([POINTS[:4] + sigma * NOISE for sigma in (2.0, 0.5)])
    found = locality.agreement(denoisers, noisy, [2.0, 0.5], lambda: ticks.append(1))
    assert len(ticks) == 6
    x = noisy[1]
    torch.testing.assert_close(found.answers["optimal"][1], optimal(x, 0.5))
    torch.testing.assert_close(found.correlations["optimal"][1], locality.correlation(optimal(x, 0.5), local(x, 0.5)))
    torch.testing.assert_close(found.distances["zero"], torch.ones(2, 4, dtype=torch.float64))
    assert found.correlations.keys() == {"optimal", "zero"}
    with pytest.raises(ValueError, match=r"^denoisers, noisy: "):
        locality.agreement({"local": local}, noisy, [2.0, 0.5])
    with pytest.raises(ValueError, match=r"^odd: expected an output of x's shape"):
        locality.agreement({"local": local, "odd": lambda x, sigma: x[:1]}, noisy, [2.0, 0.5])


def test_a_mosaic_is_made_of_the_images_that_it_names() -> None:
    x = POINTS[:4] + 0.3 * NOISE
    labels = torch.arange(12) % 3
    plain, mirrored = LocalDenoiser(DATA, labels=labels), LocalDenoiser(DATA, augment="hflip")
    for denoiser, pool in ((plain, POINTS), (mirrored, torch.cat([POINTS, POINTS.flip(-1)]))):
        found = locality.mosaic(denoiser, x, 0.3)
        for b in range(4):
            for u in range(6):
                for v in range(5):
                    assert torch.equal(found.images[b, :, u, v], pool[found.nearest[b, u, v], :, u, v])
        near = locality.mosaic(denoiser, x, 0.01)
        torch.testing.assert_close(near.images, denoiser(x, 0.01), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(near.ess, torch.ones(4, 6, 5), rtol=1e-4, atol=1e-4)
    assert locality.mosaic(plain, POINTS[:4], 0.01).pieces.tolist() == [1, 1, 1, 1]
    with pytest.raises(ValueError, match=r"^denoiser: expected kind 'ls'"):
        locality.mosaic(LocalDenoiser(DATA, kind="els_torus"), x, 0.3)
