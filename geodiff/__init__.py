"""geodiff: the optimal denoiser of a diffusion model over a data set, exactly and fast.

denoiser = geodiff.OptimalDenoiser(data)      # r*(x; sigma) = sum_i softmax_i(-|x - x_i|^2 / 2 sigma^2) x_i
trajectory = geodiff.sample(denoiser, noise, geodiff.schedules.karras(18))

Every name below is imported when it is first used; docs/architecture.md says where each lives.
"""

import importlib
from typing import TYPE_CHECKING, Any

from geodiff.base import module_aliases

if TYPE_CHECKING:
    from geodiff.analysis import (
        analytic,
        geometry,
        interpolation,
        likelihood_ascent,
        locality,
        quality,
        score_deviation,
        symmetry,
    )
    from geodiff.analysis.mean_shift import mean_shift
    from geodiff.base.errors import BackendUnavailable, DataError
    from geodiff.base.posterior import Posterior
    from geodiff.base.version import VERSION

    __version__ = VERSION
    from geodiff.denoiser import MixtureDenoiser, OptimalDenoiser, SmoothedDenoiser, TemperedDenoiser, ops
    from geodiff.local.module import LocalDenoiser
    from geodiff.reference import moments
    from geodiff.solvers import Trajectory, sample

    from . import (
        adapters,
        analysis,
        backends,
        data,
        distributed,
        inverse,
        learned,
        local,
        measure,
        output,
        paths,
        reference,
        report,
        schedules,
        solvers,
    )

#: Names that stand in this module, and where they live: "module:name", or a module.
_HOMES = {
    "BackendUnavailable": "base.errors:BackendUnavailable",
    "DataError": "base.errors:DataError",
    "MixtureDenoiser": "denoiser.variants:MixtureDenoiser",
    "LocalDenoiser": "local.module:LocalDenoiser",
    "OptimalDenoiser": "denoiser.module:OptimalDenoiser",
    "Posterior": "base.posterior:Posterior",
    "SmoothedDenoiser": "denoiser.variants:SmoothedDenoiser",
    "TemperedDenoiser": "denoiser.variants:TemperedDenoiser",
    "Trajectory": "solvers.trajectory:Trajectory",
    "mean_shift": "analysis.mean_shift:mean_shift",
    "sample": "solvers.sampling:sample",
    "__version__": "base.version:VERSION",
    "analytic": "analysis.analytic",
    "geometry": "analysis.geometry",
    "interpolation": "analysis.interpolation",
    "likelihood_ascent": "analysis.likelihood_ascent",
    "locality": "analysis.locality",
    "moments": "reference.moments",
    "ops": "denoiser.ops",
    "quality": "analysis.quality",
    "score_deviation": "analysis.score_deviation",
    "symmetry": "analysis.symmetry",
}
_FOLDERS = (
    "adapters",
    "analysis",
    "backends",
    "data",
    "denoiser",
    "distributed",
    "inverse",
    "learned",
    "local",
    "measure",
    "output",
    "paths",
    "reference",
    "report",
    "schedules",
    "solvers",
)

__all__ = [
    "BackendUnavailable",
    "DataError",
    "LocalDenoiser",
    "MixtureDenoiser",
    "OptimalDenoiser",
    "Posterior",
    "SmoothedDenoiser",
    "TemperedDenoiser",
    "Trajectory",
    "adapters",
    "analysis",
    "analytic",
    "backends",
    "data",
    "distributed",
    "geometry",
    "interpolation",
    "inverse",
    "learned",
    "likelihood_ascent",
    "local",
    "locality",
    "mean_shift",
    "measure",
    "moments",
    "ops",
    "output",
    "paths",
    "quality",
    "reference",
    "report",
    "sample",
    "schedules",
    "score_deviation",
    "solvers",
    "symmetry",
]


def __getattr__(name: str) -> Any:
    if name in _FOLDERS:
        return importlib.import_module(f"geodiff.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'geodiff' has no attribute {name!r}")
    module, _, inside = _HOMES[name].partition(":")
    home = importlib.import_module(f"geodiff.{module}")
    globals()[name] = value = getattr(home, inside) if inside else home
    return value


module_aliases.install({f"geodiff.{name}": f"geodiff.{home}" for name, home in _HOMES.items() if ":" not in home})


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
