"""What one evaluation of r took: for `Trajectory.cost`."""

import math
from typing import NamedTuple


class Cost(NamedTuple):
    """One evaluation of r(x; sigma) for a batch.

    paths  how many queries were answered by which path of the backend (csrc/cpu/README.md): "screened", "dense", ...
    rows   of the data, read in passes over them and one by one; -1: unknown
    error  the largest estimate of |r - r64| / max(|r64|, 0.01 max_i |x_i|), to be held against tol; NaN: unknown
    sigma  of the evaluation
    """

    paths: dict[str, int]
    rows: int = -1
    error: float = math.nan
    sigma: float = math.nan
