"""A learned denoiser or flow, small enough for a laptop: `train` makes one, `load` reads one; some weights ship.

distillation/ has students of any denoiser. Imports from `base`, `data`, `reference`, `paths`, `denoiser` and `solvers`.
"""

from geodiff.learned.consistency import ConsistencyModel
from geodiff.learned.denoiser import LearnedDenoiser
from geodiff.learned.flow import LearnedFlow
from geodiff.learned.network import UNetConfig
from geodiff.learned.training import Training, train
from geodiff.learned.trajectory_operator import TrajectoryOperator
from geodiff.learned.weights_file import load, load_network, save, shipped

__all__ = [
    "ConsistencyModel",
    "LearnedDenoiser",
    "LearnedFlow",
    "Training",
    "TrajectoryOperator",
    "UNetConfig",
    "load",
    "load_network",
    "save",
    "shipped",
    "train",
]
