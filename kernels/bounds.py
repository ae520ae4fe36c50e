"""The numbers in the error bounds that decide what may be skipped and when an answer is accepted; see README.md."""

import math

import torch

from geodiff.kernels.prepared import Prepared

#: float32, to the nearest.
ROUNDING = 2.0**-24
#: A tensor core's float32 sums, which are cut off.
CUT = 2.0**-23
#: Products that a tensor core sums at once; tests/gpu/test_depth.py asks the machine.
DEPTH = 16
#: Random errors are bounded at so many standard deviations.
DEVIATIONS = 5
#: What independent errors of the logits may do to log_prob, of the 1e-3 that the contract allows.
LOG_SHARE = 2.5e-4


def products(stored: torch.dtype) -> int:
    """Tensor-core products behind one partial sum of the logits of float rows."""
    return 6 if stored == torch.float32 else 3


def cutoff(data: Prepared, n: int, tol: float) -> float:
    """Rows whose logit lies this far below the largest, all n together, move the mean by tol/50 of the least scale."""
    return math.log(max(2.0, n * 2 * max(data.radius, 1e-300) * 50 / (tol * data.least_scale)))
