"""Curvature and torsion of the sampling trajectory, from the denoising trajectory that carries them."""

from typing import NamedTuple

import torch
from torch import Tensor

from geodiff.analysis.geometry.paths import check_trajectory, flat
from geodiff.solvers.trajectory import Trajectory


class Bending(NamedTuple):
    """curvature, torsion: float64 [S, B], one number per evaluated level and sample, in 1 / (unit of x)."""

    curvature: Tensor
    torsion: Tensor


def bending(trajectory: Trajectory) -> Bending:
    """kappa = |r'_1| / |x - r|^2 and tau = |r''_2| / (|x - r| |r'_1|), the first two curvatures of Frenet in R^d.

    With t = log sigma the ODE reads dx/dt = x - r, so d2x/dt2 = (x - r) - r' and d3x/dt3 = (x - r) - r' - r'', where
    r' = dr/dt; curvatures depend on no parameter. r'_1 is the part of r' normal to x - r, and r''_2 the part of r''
    normal to x - r and r': without r a trajectory is a straight line, and the bending of the sampling trajectory is
    the motion of the denoising one (arXiv 2305.19947; in these terms derived here). r' and r'' are those of the
    parabola through three neighbouring levels, second and first order in their distance.
    Torsion has no sign in R^d, and is NaN where the curvature is 0. Raises ValueError for fewer than three steps.
    """
    steps = len(check_trajectory(trajectory).denoised)
    if steps < 3:
        raise ValueError(f"trajectory: expected S >= 3 steps, found {steps}; allowed three levels that were evaluated")
    t = trajectory.sigmas[:-1].log().tolist()
    curvature, torsion = [], []
    for step in range(steps):
        middle = min(max(step, 1), steps - 2)
        nodes = t[middle - 1 : middle + 2]
        points = [flat(trajectory.denoised[level]) for level in (middle - 1, middle, middle + 1)]
        slope, second = _derivatives(nodes, points, t[step])
        tangent = flat(trajectory.states[step]) - flat(trajectory.denoised[step])
        speed = tangent.norm(dim=1)
        normal = _without(slope, tangent)
        height = normal.norm(dim=1)
        curvature.append(height / speed.square())
        torsion.append(_without(_without(second, tangent), normal).norm(dim=1) / (speed * height))
    return Bending(torch.stack(curvature), torch.stack(torsion))


def _derivatives(nodes: list[float], points: list[Tensor], t: float) -> tuple[Tensor, Tensor]:
    """First and second derivative at t of the parabola through (nodes, points), by divided differences."""
    (a, b, c), (at_a, at_b, at_c) = nodes, points
    first = (at_b - at_a) / (b - a)
    second = ((at_c - at_b) / (c - b) - first) / (c - a)
    return first + (2 * t - a - b) * second, 2 * second


def _without(vector: Tensor, direction: Tensor) -> Tensor:
    """The part of vector [B, d] normal to direction [B, d]; all of it where the direction is 0."""
    length = direction.norm(dim=1, keepdim=True)
    unit = torch.where(length > 0, direction / length, 0.0)
    return vector - (vector * unit).sum(1, keepdim=True) * unit
