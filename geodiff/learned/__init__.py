"""A learned denoiser or flow, small enough for a laptop: `train` makes one, `load` reads one; some weights ship.

Imports from `base`, `data`, `reference`, `paths` and `denoiser`.
"""

from geodiff.learned.denoiser import LearnedDenoiser
from geodiff.learned.flow import LearnedFlow
from geodiff.learned.network import UNetConfig
from geodiff.learned.training import Training, train
from geodiff.learned.weights_file import load, save, shipped

__all__ = ["LearnedDenoiser", "LearnedFlow", "Training", "UNetConfig", "load", "save", "shipped", "train"]
