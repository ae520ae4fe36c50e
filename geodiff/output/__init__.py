"""What a person looks at: pictures of images and trajectories.

Imports from `base` and `solvers`; needs matplotlib, which is imported where it is used.
"""

import pkgutil

__all__ = [module.name for module in pkgutil.iter_modules(__path__)]
