"""What one evaluation of r took: for `Trajectory.cost`."""

import math
from collections import Counter
from collections.abc import Sequence
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

    @classmethod
    def total(cls, costs: "Sequence[Cost]") -> "Cost":
        """Of one evaluation, asked in parts."""
        paths: Counter[str] = Counter()
        for cost in costs:
            paths.update(cost.paths)
        known = all(cost.rows >= 0 for cost in costs)
        error = max((cost.error for cost in costs), default=0.0)
        return cls(dict(paths), sum(cost.rows for cost in costs) if known else -1, error)


#: Of an evaluation without a memory, by which an engine knows that somebody keeps account.
UNTOLD = Cost({})
