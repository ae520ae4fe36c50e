"""A quantity measured on many trajectories, in summary: the curve and the band around it."""

from typing import NamedTuple

import torch
from torch import Tensor


class Band(NamedTuple):
    """mean, std, low and high over the batch, each float64 [P]."""

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor


def band(values: Tensor, *, coverage: float = 0.9) -> Band:
    """Mean, standard deviation (0 for B = 1), and the quantiles (1 -+ coverage) / 2 of values [P, B], B >= 1.

    Raises ValueError for another shape, an empty batch, or a coverage outside [0, 1].
    """
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(
            f"values: expected shape [P, B], B >= 1, found {list(values.shape)}; allowed what geometry returns"
        )
    if not 0 <= coverage <= 1:
        raise ValueError(f"coverage: expected a share, found {coverage!r:.60}; allowed 0 <= coverage <= 1")
    values = values.double()
    tails = values.new_tensor([(1 - coverage) / 2, (1 + coverage) / 2])
    low, high = values.quantile(tails, dim=1)
    std = values.std(1) if values.shape[1] > 1 else torch.zeros_like(low)
    return Band(values.mean(1), std, low, high)
