"""Denoisers whose posterior mean, and often whose whole trajectory, is known in closed form."""

from geodiff.analytic.gaussian import GaussianDenoiser
from geodiff.analytic.mixture import MixtureDenoiser
from geodiff.analytic.two_point import two_point, two_point_flow, two_point_invariant

__all__ = ["GaussianDenoiser", "MixtureDenoiser", "two_point", "two_point_flow", "two_point_invariant"]
