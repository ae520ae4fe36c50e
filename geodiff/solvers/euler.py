"""Euler's method, which for this ODE is DDIM."""

from collections.abc import Sequence

import torch
from torch import Tensor

from geodiff.solvers.step import Evaluate, Visited


def euler(
    denoiser: Evaluate,
    x: Tensor,
    sigma: float,
    sigma_next: float,
    denoised: Tensor,
    history: Sequence[Visited] = (),
    out: Tensor | None = None,
) -> Tensor:
    """x' = (sigma'/sigma) x + (1 - sigma'/sigma) r(x; sigma): first order, one evaluation (DDIM, 2010.02502).

    The same as x + (sigma' - sigma) (x - r) / sigma, written as the convex combination that it is: a step to 0 returns
    r exactly.
    """
    ratio = sigma_next / sigma
    # Not lerp, which rounds 1 - ratio: after a long step that would cost x its last digits.
    return torch.mul(x, ratio, out=out).add_(denoised, alpha=1 - ratio)
