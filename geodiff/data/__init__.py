"""Reading data sets: tensors, arrays, files, folders and built-in names, in the dtype they are stored in.

Imports from `base`. One file a format; `loading` chooses among them.
"""

from geodiff.data.dataset import Dataset
from geodiff.data.loading import BUILTIN_NAMES, load

__all__ = ["BUILTIN_NAMES", "Dataset", "load"]
