"""The small data set whose values are known: eight points and two noises in six dimensions, from a formula."""

import torch
from torch import Tensor

from geodiff.paths import LINEAR, Path


def points(n: int = 8, d: int = 6) -> Tensor:
    """x_i[j] = sin(1 + 0.9 i + 0.7 j + 0.31 i j), float64 [n, d]."""
    i, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    return (1 + 0.9 * i + 0.7 * j + 0.31 * i * j).sin()


def noise(b: int = 2, d: int = 6) -> Tensor:
    """n_b[j] = 1.3 cos(0.5 + 2.1 b + 1.9 j), float64 [b, d]."""
    i, j = torch.arange(b, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    return 1.3 * (0.5 + 2.1 * i + 1.9 * j).cos()


def at(t: float, path: Path = LINEAR) -> Tensor:
    """x_t = alpha x_0 + sigma n for x_0 = points 2 and 5, float64 [2, 6]."""
    return path.mix(points()[[2, 5]], noise(), t)


def summary(values: Tensor) -> list[float]:
    """What is printed of an array [.., 6]: its first number, [-1, 5], the sum, and the sum of squares."""
    return [float(values[0, 0]), float(values[-1, 5]), float(values.sum()), float(values.square().sum())]
