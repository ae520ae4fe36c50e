"""The directions in which a trajectory moves: eps = (x - r) / sigma, the slope of the ODE at each level."""

from collections.abc import Iterator

import torch
from torch import Tensor

from geodiff.analysis.geometry.paths import check_trajectory, flat
from geodiff.base.per_point import per_point
from geodiff.solvers.trajectory import Trajectory


def directions(trajectory: Trajectory) -> Tensor:
    """eps_s = (x_s - r_s) / sigma_s = dx/dsigma, [S, B, *shape] in the dtype of the states."""
    trajectory = check_trajectory(trajectory)
    levels = trajectory.sigmas[:-1].to(trajectory.states.dtype)
    return (trajectory.states[:-1] - trajectory.denoised) / per_point(levels, trajectory.states)


def direction_magnitude(trajectory: Trajectory) -> Tensor:
    """|eps_s|, float64 [S, B]: sqrt(d), and close to it down to the last levels (Chen et al., 2305.19947)."""
    return torch.stack([eps.norm(dim=1) for eps in _each_direction(check_trajectory(trajectory))])


def cosines(trajectory: Trajectory) -> Tensor:
    """cos(eps_s, x_s - x_end), float64 [S, B]: 1 where the ODE points straight at its own end; NaN where x_s is x_end.

    Chen et al., 2305.19947 (section 4).
    """
    end = flat(check_trajectory(trajectory).states[-1])
    measured = []
    for eps, x in zip(_each_direction(trajectory), trajectory.states, strict=False):
        away = flat(x) - end
        measured.append((eps * away).sum(1) / (eps.norm(dim=1) * away.norm(dim=1)))
    return torch.stack(measured)


def _each_direction(trajectory: Trajectory) -> Iterator[Tensor]:
    """eps_s, [B, d] float64, one level after the other."""
    for sigma, x, denoised in zip(trajectory.sigmas.tolist(), trajectory.states, trajectory.denoised, strict=False):
        yield (flat(x) - flat(denoised)) / sigma
