"""Tensors over memory that is not torch's own: a memory-mapped file, a caller's array."""

import errno
import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor


def map_file(open_map: Callable[[Literal["c", "r"]], np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Memory-maps a file through open_map(mode), so that pages are read when touched, and the file can never change.

    Copy-on-write where possible: a stray write to the tensor then does no harm. The system may refuse that for a file
    larger than its memory, because every page could come to be written; such a file is mapped read-only.
    """
    try:
        return open_map("c")
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        return open_map("r")


def view_array(array: np.ndarray[Any, Any]) -> Tensor:
    """The array as a tensor over the same memory. Raises TypeError or ValueError where torch has no such view."""
    with warnings.catch_warnings():
        # Nothing in this package writes to the data, and a map opened with mode 'r' is the usual large array.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
