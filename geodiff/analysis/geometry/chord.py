"""Lengths along a path: how far each point is from the chord, from the end, from the origin."""

import itertools

import torch
from torch import Tensor

from geodiff.analysis.geometry.paths import check_path, each, flat


def deviation(path: Tensor) -> Tensor:
    """dev(x_p) = |v - <v, u> u|, v = x_p - x_0, u = (x_end - x_0) / |x_end - x_0|: the distance from the chord.

    path [P, B, *shape], P >= 2. Returns float64 [P, B], 0 at both ends (to rounding); |v| where the ends coincide.
    The trajectory deviation of Chen et al., 2305.19947 (section 4). Raises TypeError or ValueError for no path.
    """
    path = check_path(path)
    start, chord = flat(path[0]), _unit_chord(path)

    def distance(point: Tensor) -> Tensor:
        v = point - start
        return (v - (v * chord).sum(1, keepdim=True) * chord).norm(dim=1)

    return each(path, distance)


def distance_to_end(path: Tensor) -> Tensor:
    """d(x_p, x_end) = |x_p - x_end|, float64 [P, B] (Chen et al., 2305.19947, proposition 2 in expectation).

    path [P, B, *shape], P >= 2. Raises TypeError or ValueError for no path.
    """
    path = check_path(path)
    end = flat(path[-1])
    return each(path, lambda point: (point - end).norm(dim=1))


def magnitude(path: Tensor) -> Tensor:
    """|x_p|, float64 [P, B]: falls along a sampling trajectory, rises along a denoising one (Chen et al., 2305.19947).

    path [P, B, *shape], P >= 1. Raises TypeError or ValueError for no path.
    """
    return each(check_path(path, 1), lambda point: point.norm(dim=1))


def path_length(path: Tensor) -> Tensor:
    """sum_p |x_{p+1} - x_p|, float64 [B]: at least the chord |x_end - x_0|, and equal to it for a straight path.

    path [P, B, *shape], P >= 2. Raises TypeError or ValueError for no path.
    """
    path = check_path(path)
    total = torch.zeros(path.shape[1], dtype=torch.float64, device=path.device)
    for point, following in itertools.pairwise(path):
        total += (flat(following) - flat(point)).norm(dim=1)
    return total


def straightness(path: Tensor) -> Tensor:
    """max_p dev(x_p) / |x_0|, float64 [B]: about .003 for a sampling trajectory of CIFAR-10 (Chen et al., 2305.19947).

    path [P, B, *shape], P >= 2. Raises TypeError or ValueError for no path.
    """
    path = check_path(path)
    return deviation(path).amax(0) / flat(path[0]).norm(dim=1)


def _unit_chord(path: Tensor) -> Tensor:
    """u, [B, d] float64; 0 where the ends coincide."""
    chord = flat(path[-1]) - flat(path[0])
    length = chord.norm(dim=1, keepdim=True)
    return torch.where(length > 0, chord / length, 0.0)
