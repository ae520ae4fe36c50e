"""Reading data sets: arrays, files, folders, objects and built-in names, in the dtype they are stored in.

Imports from `base`. One file a format; `loading` chooses among them, `stream` is what is read piece by piece, and
`conversion` writes that down as one .npy.
"""

from geodiff.data.conversion import convert
from geodiff.data.dataset import Dataset
from geodiff.data.holdout import Split, split
from geodiff.data.loading import BUILTIN_NAMES, load, load_latents

__all__ = ["BUILTIN_NAMES", "Dataset", "Split", "convert", "load", "load_latents", "split"]
