"""The geometry of sampling and denoising trajectories: every quantity that the paper plots, as a function.

Functions of a path take [P, B, *shape] of any kind: `trajectory.states` (the sampling trajectory, P = S + 1) or
`trajectory.denoised` (the denoising trajectory, P = S, its ends r at the first and at the last evaluated level). They
work in float64 on one point of the path at a time, so they need memory for a few times B d numbers.
"""

from geodiff.geometry.bands import Band, band
from geodiff.geometry.bending import Bending, bending
from geodiff.geometry.deviation import deviation, distance_to_end, magnitude, path_length, straightness
from geodiff.geometry.directions import cosines, direction_magnitude, directions
from geodiff.geometry.projection import Projection, project
from geodiff.geometry.shell import ThinShell, thin_shell

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
