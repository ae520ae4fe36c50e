"""What a recorder of CUDA graphs needs of the optimal denoiser, and a user does not."""

from collections.abc import Sequence

import torch
from torch import Tensor

from geodiff.backends.combination import Combination, Term
from geodiff.denoiser.module import OptimalDenoiser


def recording_key(denoiser: OptimalDenoiser, batch: int) -> tuple[object, ...] | None:
    """What a CUDA graph of `unchecked` with `batch` queries holds for; None: it cannot be recorded.

    It can where the backend for so many queries never waits for the device. After a move the key is another: it holds
    the engine, whose addresses the graph has.
    """
    points = denoiser._points
    engine = points.engines.serving(batch)
    return None if points.mirror is not None or not engine.capturable else (engine, denoiser.tol)


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
