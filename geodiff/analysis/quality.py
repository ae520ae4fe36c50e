"""Visual quality as numbers: Fréchet and kernel distances between sets of features, and the nearest data points."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from geodiff.analysis.analytic import GaussianDenoiser
from geodiff.base.arguments import check_integer
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.denoiser.nearest import nearest_two

__all__ = ["Features", "Nearest", "PrincipalComponents", "frechet_distance", "kernel_distance", "nearest"]

#: Points [B, *shape] in model space -> features [B, k].
Features = Callable[[Tensor], Tensor]

_POINTS_FOR_COMPONENTS = 5000


class PrincipalComponents:
    """f(x) = (x - mu) V, [B, k]: coordinates along the k directions in which the data vary most, in the data's units.

    Fitted to at most 5,000 points of data [N, *shape], evenly spread over it. k is cut to what N and d allow. The
    default features here: they need no network and no download, and Fréchet distances over them are squared distances
    in pixels.
    """

    def __init__(self, data: Tensor, k: int = 64) -> None:
        k = check_integer(k, "k", 1)
        chosen = torch.linspace(0, len(data) - 1, min(len(data), _POINTS_FOR_COMPONENTS), device="cpu").round().long()
        fitted = GaussianDenoiser.fit(data[chosen.to(data.device)], dtype=torch.float64)
        self.mean = fitted.mean.flatten()
        self.components = fitted.basis.flip(1)[:, :k]  # [d, k], variances fall

    def __call__(self, x: Tensor) -> Tensor:
        return (x.flatten(1).double() - self.mean) @ self.components


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """|mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2) for features a [n, k] and b [m, k], n, m >= 2.

    The squared 2-Wasserstein distance of the Gaussians with these means and covariances (Dowson and Landau 1982; with
    Inception features it is FID, Heusel et al., 1706.08500). In squared units of the features. Biased upwards for few
    points: compare only sets of one size. Raises ValueError for shapes that do not fit.
    """
    a, b = _checked(a, b)
    gap = a.mean(0) - b.mean(0)
    cov_a, cov_b = torch.cov(a.T).reshape(2 * a.shape[1:]), torch.cov(b.T).reshape(2 * b.shape[1:])
    root = _square_root(cov_a)
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return max(0.0, float(gap.square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross))


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """MMD^2 = mean k(a, a') + mean k(b, b') - 2 mean k(a, b), k(u, v) = (<u, v> / dim + 1)^3, over pairs of two points.

    Unbiased, so it may be below 0 for equal distributions (Gretton et al. 2012; with Inception features it is KID,
    Binkowski et al., 1801.01401). a [n, dim], b [m, dim], n, m >= 2. Raises ValueError for shapes that do not fit.
    """
    a, b = _checked(a, b)

    def within(points: Tensor) -> Tensor:
        kernel = _cubic(points, points)
        return (kernel.sum() - kernel.diagonal().sum()) / (len(points) * (len(points) - 1))

    return float(within(a) + within(b) - 2 * _cubic(a, b).mean())


@dataclass(frozen=True, eq=False)
class Nearest:
    """The data points nearest to each of B queries.

    index    [B] row of the nearest point, in the order of the data passed to the denoiser
    distance [B] |x - x_i| to it, float64
    second   [B] to the second nearest; infinity where there is one point only
    """

    index: Tensor
    distance: Tensor
    second: Tensor

    @property
    def copied(self) -> Tensor:
        """[B]: distance < second / 3, the usual sign of a memorised point (Yoon et al. 2023)."""
        return self.distance < self.second / 3


def nearest(optimal: OptimalDenoiser, x: Tensor) -> Nearest:
    """min_i |x - x_i| and the second smallest, for x [B, *shape] in model space, exact.

    log_weights do not count, but points of weight 0 are left out. With augment="hflip" a point is as near as the nearer
    of it and its mirror image, and has the index of the point. Raises ValueError for a denoiser with labels.
    """
    if optimal.label_dim:
        raise ValueError("optimal: expected a denoiser without labels, found labels; allowed OptimalDenoiser(data)")
    index, distance = nearest_two(optimal, x)
    second = distance[:, 1] if distance.shape[1] == 2 else torch.full_like(distance[:, 0], torch.inf)
    return Nearest(index[:, 0], distance[:, 0], second)


def _checked(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    for name, value in (("a", a), ("b", b)):
        if value.ndim != 2 or len(value) < 2:
            raise ValueError(
                f"{name}: expected features [n, k] of n >= 2 points, found {list(value.shape)}; allowed n >= 2"
            )
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"b: expected k = {a.shape[1]} features as a has, found {b.shape[1]}")
    return a.double(), b.double()


def _square_root(matrix: Tensor) -> Tensor:
    """The symmetric root of a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _cubic(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3
