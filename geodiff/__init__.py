"""geodiff: the optimal denoiser of a diffusion model over a data set, exactly and fast.

denoiser = geodiff.OptimalDenoiser(data)      # r*(x; sigma) = sum_i softmax_i(-|x - x_i|^2 / 2 sigma^2) x_i
trajectory = geodiff.sample(denoiser, noise, geodiff.schedules.karras(18))
"""

from importlib.metadata import PackageNotFoundError, version

from geodiff import (
    adapters,
    analytic,
    backends,
    data,
    geometry,
    interpolation,
    ops,
    reference,
    schedules,
    solvers,
    symmetry,
)
from geodiff.denoiser import OptimalDenoiser
from geodiff.errors import BackendUnavailable, DataError
from geodiff.mean_shift import mean_shift
from geodiff.posterior import Posterior
from geodiff.solvers import sample
from geodiff.trajectory import Trajectory

__all__ = [
    "BackendUnavailable",
    "DataError",
    "OptimalDenoiser",
    "Posterior",
    "Trajectory",
    "adapters",
    "analytic",
    "backends",
    "data",
    "geometry",
    "interpolation",
    "mean_shift",
    "ops",
    "reference",
    "sample",
    "schedules",
    "solvers",
    "symmetry",
]

try:
    __version__ = version("geodiff")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "unknown"
