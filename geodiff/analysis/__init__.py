"""What the paper does with the optimal denoiser, and what it is compared with: a module a subject.

geometry/           trajectories: deviation, bending, shells      analytic/          denoisers known in closed form
interpolation       of latents                                    symmetry           spontaneous breaking, late start
score_deviation     learned against optimal                       likelihood_ascent  along r and the Euler step
quality             distances between sets of images              mean_shift         modes of the smoothed data
flow_deviation      learned velocity against optimal              calibration        windows a network looks through
locality            local beside learned and optimal              lanczos            an operator's largest eigenvalue

Imports from everything below it: `base`, `schedules`, `reference`, `denoiser`, `solvers`.
"""

import importlib
import pkgutil
from types import ModuleType

__all__ = [module.name for module in pkgutil.iter_modules(__path__)]


def __getattr__(name: str) -> ModuleType:
    # Each when it is first used: `import geodiff` alone is enough, and brings none of them.
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
