"""What local denoisers are made of: which posteriors there are, their distances, and how they make one image.

Window sums are products with 0/1 band matrices along either axis: clipped, periodic or fitting windows alike, and only
non-negative numbers are added. They are sums and never means: a mean would be a temperature of k^2 C.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Where a candidate's centre lies relative to the pixel: s - p.
Shift = tuple[int, int]


def clipped(size: int, k: int, like: Tensor) -> Tensor:
    """[size, size]: the window of k around each place, clipped at the ends."""
    places = torch.arange(size, device=like.device)
    return ((places[:, None] - places).abs() <= k // 2).to(like.dtype)


def periodic(size: int, k: int, like: Tensor) -> Tensor:
    """[size, size]: the window of k around each place, going on at the other end; k <= size."""
    places = torch.arange(size, device=like.device)
    far = (places[:, None] - places).abs()
    return (torch.minimum(far, size - far) <= k // 2).to(like.dtype)


def fitting(size: int, k: int, like: Tensor) -> Tensor:
    """[size - k + 1, size]: every window of k that fits, by its first place."""
    after = torch.arange(size, device=like.device) - torch.arange(size - k + 1, device=like.device)[:, None]
    return ((after >= 0) & (after < k)).to(like.dtype)


def differences(x: Tensor, values: Tensor) -> Tensor:
    """e_i(p) = sum_c (x[c, p] - x_i[c, p])^2, [b, n, H, W], for x [b, C, H, W] and values [n, C, H, W]."""
    return (x[:, None] - values).square().sum(2)


class Form(ABC):
    """Posteriors a, of shape A, over candidates: images, or images and where in them (`shifts`)."""

    #: whether a pixel is the mean of several posteriors, so that their means differ from r
    overlap = False

    def shifts(self, height: int, width: int) -> Sequence[Shift]:
        """Where candidates may lie relative to the pixel: by default only there."""
        return ((0, 0),)

    def moved(self, points: Tensor, shift: Shift) -> Tensor:
        """The candidates' values at each pixel, [n, C, H, W]: x_i[c, p + shift]."""
        return points if shift == (0, 0) else points.roll((-shift[0], -shift[1]), (-2, -1))

    @abstractmethod
    def distances(self, x: Tensor, values: Tensor, shift: Shift) -> Tensor:
        """q_i(a), [b, n, *A], for x [b, C, H, W] and `moved` values."""

    def admissible(self, size: Sequence[int], shift: Shift, like: Tensor) -> Tensor | None:
        """Of which posteriors the `moved` images are candidates, bool [*A]; None: of all."""
        return None

    def spread(self, weights: Tensor) -> Tensor:
        """What every pixel takes of each image, [b, n, 1 or C, H, W], of weights [b, n, *A]."""
        return weights[:, :, None]

    def between(self, apart: Tensor, size: Sequence[int]) -> Tensor:
        """sum_a c_a(p) (D_a(p) - r(p))^2, [b, C, H, W], for D_a - r [b, |A|, C, H W]; where posteriors overlap."""
        raise NotImplementedError

    def divergence(self, variance: Tensor, sigma: Tensor) -> Tensor:
        """div r [b] = sum variance / sigma^2, for variance [b, C, H, W]: a number counts once in its own posteriors."""
        return variance.flatten(1).sum(1) / sigma.square()


@dataclass(frozen=True)
class Windows(Form):
    """LS: q_i(p) = the sum of e_i over the k x k window around pixel p, k odd; clipped, or periodic with k <= H, W.

    r[c, p] = sum_i w_i(p) x_i[c, p]: the local score machine of Kamb and Ganguli, 2412.20292.
    """

    k: int
    circular: bool = False

    def distances(self, x: Tensor, values: Tensor, shift: Shift) -> Tensor:
        band = periodic if self.circular else clipped
        e = differences(x, values)
        return band(e.shape[-2], self.k, e) @ e @ band(e.shape[-1], self.k, e)


@dataclass(frozen=True)
class Displaced(Form):
    """ELS: q_{i,s}(p) = the sum over the window of (x[., p + delta] - x_i[., s + delta])^2; candidates are (i, s).

    r[c, p] = sum_{i,s} w_{i,s}(p) x_i[c, s], Kamb and Ganguli, 2412.20292. rule:
    "torus"  x and x_i periodic, every s: what the symmetry of a circularly padded network asks for
    "valid"  x periodic, the s whose window fits into the image
    "broken" windows clipped at the border, the s whose window is clipped as that of p is
    """

    k: int
    rule: str

    def shifts(self, height: int, width: int) -> Sequence[Shift]:
        if self.rule != "broken":
            return [(u, v) for u in range(height) for v in range(width)]
        inner = [max(0, size - 2 * (self.k // 2) - 1) for size in (height, width)]
        return [(u, v) for u in range(-inner[0], inner[0] + 1) for v in range(-inner[1], inner[1] + 1)]

    def distances(self, x: Tensor, values: Tensor, shift: Shift) -> Tensor:
        band = clipped if self.rule == "broken" else periodic
        e = differences(x, values)
        return band(e.shape[-2], self.k, e) @ e @ band(e.shape[-1], self.k, e)

    def admissible(self, size: Sequence[int], shift: Shift, like: Tensor) -> Tensor | None:
        if self.rule == "torus":
            return None
        rows, columns = (self._along(length, by, like) for length, by in zip(size, shift, strict=True))
        return rows[:, None] & columns

    def _along(self, size: int, by: int, like: Tensor) -> Tensor:
        """Whether place p + by is a candidate's centre for place p, [size] bool: both axes have to agree."""
        p = torch.arange(size, device=like.device)
        half, s = self.k // 2, p + by
        if self.rule == "valid":
            s = s % size
            return (s >= half) & (s < size - half)
        before = p.clamp(max=half) == s.clamp(max=half)
        after = (size - 1 - p).clamp(max=half) == (size - 1 - s).clamp(max=half)
        return before & after & (s >= 0) & (s < size)


class Masked(Form):
    """Posteriors a over pixels m_a, all channels: q_i(a) = sum_p m_a(p) e_i(p), and a pixel is the plain mean.

    r[c, p] = sum_i x_i[c, p] sum_a m_a(p) w_i(a) / sum_a m_a(p): patch set posterior composites.
    """

    overlap = True

    @abstractmethod
    def matrix(self, size: Sequence[int], like: Tensor) -> Tensor:
        """m, [|A|, H W] of zeros and ones."""

    def between(self, apart: Tensor, size: Sequence[int]) -> Tensor:
        m = self.matrix(size, apart)
        total = torch.einsum("ap,bacp->bcp", m, apart.square())
        return (total / m.sum(0)).unflatten(-1, tuple(size))


@dataclass(frozen=True)
class Crops(Masked):
    """PSPC-Square: every k x k crop that fits is a posterior, any k <= H, W (Niedoba et al., 2411.19339)."""

    k: int

    def distances(self, x: Tensor, values: Tensor, shift: Shift) -> Tensor:
        e = differences(x, values)
        return fitting(e.shape[-2], self.k, e) @ e @ fitting(e.shape[-1], self.k, e).T

    def spread(self, weights: Tensor) -> Tensor:
        rows, columns = (fitting(size + self.k - 1, self.k, weights) for size in weights.shape[-2:])
        over = rows.sum(0)[:, None] * columns.sum(0)  # M(p): how many crops contain the pixel
        return (rows.T @ weights @ columns / over)[:, :, None]

    def matrix(self, size: Sequence[int], like: Tensor) -> Tensor:
        rows, columns = (fitting(n, self.k, like) for n in size)
        return torch.einsum("ah,bw->abhw", rows, columns).flatten(2).flatten(0, 1)


@dataclass(frozen=True, eq=False)
class Masks(Masked):
    """PSPC-Flex: posteriors over any pixels, masks bool [A, H, W], each pixel in one at least (Niedoba et al.).

    Raises ValueError for a pixel that no mask covers.
    """

    masks: Tensor

    def __post_init__(self) -> None:
        if self.masks.ndim != 3 or self.masks.dtype != torch.bool:
            found = f"{self.masks.dtype} {list(self.masks.shape)}"
            raise ValueError(f"masks: expected bool [A, H, W], found {found}; allowed one mask or more")
        bare = int((~self.masks.any(0)).sum())
        if bare:
            raise ValueError(
                f"masks: expected each pixel in a mask, found {bare} in none; allowed masks that cover all"
            )

    def distances(self, x: Tensor, values: Tensor, shift: Shift) -> Tensor:
        e = differences(x, values)
        return e.flatten(2) @ self.matrix(e.shape[-2:], e).T

    def spread(self, weights: Tensor) -> Tensor:
        size = self.masks.shape[1:]
        m = self.matrix(size, weights)
        return (weights @ m / m.sum(0)).unflatten(-1, size)[:, :, None]

    def matrix(self, size: Sequence[int], like: Tensor) -> Tensor:
        return self.masks.flatten(1).to(like)


@dataclass(frozen=True, eq=False)
class Pairs(Form):
    """PCA locality: a posterior for every number m = (c, p), q_i(m) = sum_n M[n, m] (x_n - x_{i,n})^2 / temperature.

    matrix M [d, d], d = C H W, of inputs n and outputs m; r[m] = sum_i w_i(m) x_i[m] (Lukoianov et al., 2509.09672).
    """

    matrix: Tensor
    temperature: float = 1.0

    def distances(self, x: Tensor, values: Tensor, shift: Shift) -> Tensor:
        far = (x[:, None] - values).square()  # [b, n, C, H, W]
        return (far.flatten(2) @ self.matrix.to(far) / self.temperature).unflatten(-1, far.shape[2:])

    def spread(self, weights: Tensor) -> Tensor:
        return weights

    def divergence(self, variance: Tensor, sigma: Tensor) -> Tensor:
        own = (
            self.matrix.diagonal().to(variance) / self.temperature
        )  # a mask may leave a number out of its own posterior
        return super().divergence(variance * own.reshape(variance.shape[1:]), sigma)
