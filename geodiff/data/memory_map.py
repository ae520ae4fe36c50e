"""Arrays over a memory-mapped file."""

import errno
from collections.abc import Callable
from typing import Any, Literal

import numpy as np


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
