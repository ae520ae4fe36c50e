"""What the functions of a path share: the check of its shape, and walking it point by point in float64."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from geodiff.base.arguments import check_tensor
from geodiff.base.dtypes import PRECISE
from geodiff.solvers.trajectory import Trajectory


def check_path(path: object, at_least: int = 2) -> Tensor:
    """path itself, once it is known to be [P, B, *shape] floating with P >= at_least; TypeError or ValueError else."""
    if isinstance(path, Trajectory):
        raise TypeError("path: expected a torch.Tensor, found a Trajectory; allowed its .states, or its .denoised")
    path = check_tensor(path, "path", PRECISE)
    if path.ndim < 2 or len(path) < at_least:
        raise ValueError(
            f"path: expected shape [P, B, *shape] with P >= {at_least} points, found {list(path.shape)}; "
            f"allowed the states or the denoised of a Trajectory"
        )
    return path


def check_trajectory(trajectory: object) -> Trajectory:
    """trajectory itself, once it is known to be one that keeps all states; TypeError or ValueError else."""
    if not isinstance(trajectory, Trajectory):
        raise TypeError(
            f"trajectory: expected a Trajectory, found {type(trajectory).__name__}; allowed what geodiff.sample "
            f"returns, whose .states alone do not tell r"
        )
    if len(trajectory.states) != len(trajectory.sigmas):
        raise ValueError(
            f"trajectory: expected one that keeps all states, found {len(trajectory.states)} of "
            f"{len(trajectory.sigmas)}; allowed sample(..., keep='all')"
        )
    return trajectory


def flat(point: Tensor) -> Tensor:
    """[B, *shape] -> [B, d] in float64."""
    return point.reshape(len(point), math.prod(point.shape[1:])).double()


def each(path: Tensor, measure: Callable[[Tensor], Tensor]) -> Tensor:
    """measure([B, d] float64) -> [B] of every point, [P, B]."""
    return torch.stack([measure(flat(point)) for point in path])
