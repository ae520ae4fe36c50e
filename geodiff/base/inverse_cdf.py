"""Where uniform numbers fall: a distribution function inverted in two steps, lots of rows and then the rows of one."""

import torch
from torch import Tensor


def fallen(top: Tensor, mass: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """(lot, target), each [B, n]: the lot in which uniform [B, n] times the sum of all weights falls, and how far in.

    top, mass [lots, B] float64: the largest logit of a lot, and the sum of its weights exp(l - top); -inf and 0 of one
    without any. target is of the lot's own weights: its first row at which their running sum exceeds it is meant.
    """
    scaled = (mass * (top - top.amax(0)).exp()).T.contiguous()  # [B, lots], all by the largest logit
    total = scaled.cumsum(1)
    sought = uniform * total[:, -1:]
    last = len(mass) - 1 - (scaled > 0).flip(1).to(torch.int8).argmax(1, keepdim=True)  # that has any weight
    lot = torch.searchsorted(total, sought, right=True).minimum(last)
    share = (sought - (total - scaled).gather(1, lot)) / scaled.gather(1, lot)
    return lot, share * mass.T.gather(1, lot)
