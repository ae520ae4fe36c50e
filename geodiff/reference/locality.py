"""Which inputs count for which outputs: the Wiener filter of a data set, and the masks that are made from it."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from geodiff.base.arguments import check_data
from geodiff.reference.formula import model_space

_TILE = 2**22  # the most numbers of the data that are held in float64 at a time
#: Diagonal entries of the Wiener filter up to this divide as 1: of pixels that hardly vary.
SMALLEST = 1e-6
# A variance this small beside the largest eigenvalue is what eigh leaves of 0, for each dimension.
_ROUNDING = 8 * torch.finfo(torch.float64).eps


class Spectrum(NamedTuple):
    """Of a data set's covariance U diag(lambda) U^T: mean [d], values [d] lambda >= 0, vectors U [d, d], float64."""

    mean: Tensor
    values: Tensor
    vectors: Tensor


def spectrum(data: Tensor, *, ddof: int = 0, mirrored: bool = False) -> Spectrum:
    """Cov = sum_i (x_i - mu)(x_i - mu)^T / (N - ddof) of data [N, *shape], in eigenvectors; float64 throughout.

    mirrored: the images' mirror images (along the last axis) are data, too. Takes d^2 float64 numbers three times.
    """
    data = check_data(data)
    n, d = len(data) * (2 if mirrored else 1), data[0].numel()
    if n <= ddof:
        raise ValueError(f"data: expected more than {ddof} points for a covariance, found {n}")

    def tiles() -> Iterator[Tensor]:
        for part in data.split(max(1, _TILE // d)):
            points = model_space(part, torch.float64)
            yield points.flatten(1)
            if mirrored:
                yield points.flip(-1).flatten(1)

    mean = torch.zeros(d, dtype=torch.float64, device=data.device)
    for points in tiles():
        mean += points.sum(0)
    mean /= n
    covariance = torch.zeros(d, d, dtype=torch.float64, device=data.device)
    for points in tiles():
        centred = points - mean
        covariance.addmm_(centred.T, centred)
    values, vectors = torch.linalg.eigh(covariance / (n - ddof))
    return Spectrum(mean, values.clamp_min(0), vectors)


def wiener(found: Spectrum, sigma: float) -> Tensor:
    """W = Cov (Cov + sigma^2)^-1 = U diag(lambda / (lambda + sigma^2)) U^T, [d, d]: r = mu + W (x - mu)."""
    return (found.vectors * (found.values / (found.values + sigma**2))) @ found.vectors.T


def sensitivity(found: Spectrum, sigma: float) -> Tensor:
    """M[n, m] = W[n, m] / W[n, n], [d, d] of inputs n and outputs m; W[n, n] below 1e-6 divides as 1.

    0 where n or m never varies, as W is. In eigenvectors it is the rounding of such a variance over sigma^2, which may
    be any number: rounding divided by rounding would set the maximum that `pca_mask` compares with.
    """
    constant = found.vectors.square() @ found.values <= _ROUNDING * len(found.values) * found.values.max()
    w = wiener(found, sigma).masked_fill(constant | constant[:, None], 0.0)
    diagonal = w.diagonal().clone()
    diagonal[diagonal.abs() < SMALLEST] = 1
    return w / diagonal[:, None]


def pca_mask(found: Spectrum, sigma: float, threshold: float) -> Tensor:
    """1{|M| >= threshold max |M|} of `sensitivity`, bool [d, d] of inputs n and outputs m.

    Lukoianov et al., 2509.09672: threshold .05 for CIFAR-10, .02 for CelebA-HQ and AFHQ, .005 for MNIST and
    FashionMNIST.
    """
    size = sensitivity(found, sigma).abs()
    return size >= threshold * size.max()


def mask_of_heatmap(heatmap: Tensor, share: float) -> Tensor:
    """The largest entries of heatmap [..., H, W] >= 0 that hold at least `share` of its sum, bool [..., H, W].

    What is dropped, smallest first and of equals the first first, sums to less than 1 - share: PSPC-Flex's masks.
    """
    flat = heatmap.double().flatten(-2)
    flat = flat / flat.sum(-1, keepdim=True)
    rising, order = flat.sort(dim=-1, stable=True)
    kept = rising.cumsum(-1) >= 1 - share
    return torch.zeros_like(kept).scatter(-1, order, kept).unflatten(-1, heatmap.shape[-2:])
