"""What a recorder of CUDA graphs needs of the optimal denoiser, and a user does not."""

from collections.abc import Sequence

import torch
from torch import Tensor

from geodiff.backends.combination import Combination, Term
from geodiff.backends.engine import Engine
from geodiff.denoiser.module import OptimalDenoiser


def recordable_engine(denoiser: OptimalDenoiser, batch: int) -> Engine | None:
    """The engine that a CUDA graph of `unchecked` with `batch` queries runs; None: it cannot be recorded.

    It can where that engine never waits for the device. After a move it is another, at other addresses.
    """
    points = denoiser._points
    engine = points.engines.serving(batch)
    return engine if points.mirror is None and engine.capturable else None


@torch.no_grad()
def unchecked(
    denoiser: OptimalDenoiser, x: Tensor, sigma: Tensor, gain: float, terms: Sequence[Term], out: Tensor
) -> Tensor:
    """`OptimalDenoiser.combine` over all data without the checks of its arguments, which wait for the device.

    x [B, *shape] finite, where the data are; sigma float64 [B], positive, in the same place.
    """
    points = denoiser._points
    with points.stored.flat(Combination(gain, terms, out)) as flat:
        points.unchecked(points.stored.flatten(x), sigma, denoiser.tol, flat)
    return out
