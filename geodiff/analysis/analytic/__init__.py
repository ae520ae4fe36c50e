"""Denoisers whose posterior mean, and often whose whole trajectory, is known in closed form.

Imports from `base`, `data.labels`, `reference` and `solvers`.
"""

from geodiff.analysis.analytic.gaussian import GaussianDenoiser
from geodiff.analysis.analytic.mixture import GaussianMixtureDenoiser, MixtureDenoiser
from geodiff.analysis.analytic.two_points import two_point, two_point_flow, two_point_invariant

__all__ = [
    "GaussianDenoiser",
    "GaussianMixtureDenoiser",
    "MixtureDenoiser",
    "two_point",
    "two_point_flow",
    "two_point_invariant",
]
