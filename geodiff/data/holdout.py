"""Which points of a data set are held out, so that a network and a measurement agree on it without a file."""

from typing import NamedTuple

import torch
from torch import Tensor

from geodiff.base.arguments import check_integer


class Split(NamedTuple):
    """Rows of a data set, int64, rising: those to work with [N - M] and those held out [M]."""

    kept: Tensor
    held: Tensor


def split(count: int, held: int) -> Split:
    """Row floor((i + 1/2) N / M) is held out for i = 0..M-1: the middle of each of M stretches of equal length.

    count  N, the points there are
    held   M, those to hold out, 0 <= M < N

    Fixed by N and M alone. Files are often sorted by class, of which stretches of equal length take equal shares:
    100 of `mnist5k` are 10 of each digit. Raises TypeError or ValueError that names the argument.
    """
    count = check_integer(count, "count", 1)
    held = check_integer(held, "holdout", 0, count - 1)
    rows = torch.tensor([(2 * i + 1) * count // (2 * held) for i in range(held)], dtype=torch.int64, device="cpu")
    keeps = torch.ones(count, dtype=torch.bool, device="cpu")
    keeps[rows] = False
    return Split(keeps.nonzero()[:, 0], rows)
