"""The geometry of sampling and denoising trajectories: every quantity that the paper plots, as a function.

Functions of a path take [P, B, *shape] of any kind: `trajectory.states` (the sampling trajectory, P = S + 1) or
`trajectory.denoised` (the denoising trajectory, P = S, its ends r at the first and at the last evaluated level). They
work in float64 on one point of the path at a time, so they need memory for a few times B d numbers.

Imports from `base` and `solvers.trajectory`.
"""

from geodiff.analysis.geometry.bands import Band, band
from geodiff.analysis.geometry.chord import deviation, distance_to_end, magnitude, path_length, straightness
from geodiff.analysis.geometry.curvature import Bending, bending
from geodiff.analysis.geometry.projection import Projection, project
from geodiff.analysis.geometry.shell import ThinShell, thin_shell
from geodiff.analysis.geometry.tangents import cosines, direction_magnitude, directions

__all__ = [
    "Band",
    "Bending",
    "Projection",
    "ThinShell",
    "band",
    "bending",
    "cosines",
    "deviation",
    "direction_magnitude",
    "directions",
    "distance_to_end",
    "magnitude",
    "path_length",
    "project",
    "straightness",
    "thin_shell",
]
