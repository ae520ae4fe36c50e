"""Contract 1 in numbers: |r - r64| / max(|r64|, 0.01 max_i |x_i|) for each query, which `tol` bounds.

Everything that says how far off an answer is takes it from here. In float64 whatever is compared, and an answer that is
not finite is infinitely far off, so that no comparison lets it pass.
"""

import torch
from torch import Tensor

from geodiff.reference.formula import model_space

#: An answer smaller than this share of the largest point is measured against that share of it.
SMALL = 0.01
#: Instead of a division by 0, where all of the data and the answer are 0.
_LEAST = 1e-300
#: What |Δ log p| may be, and beside it a share of |log p|.
LOG_TOL, _LOG_TOL_SHARE = 1e-3, 1e-6
#: Numbers of the data that are in float64 at a time.
_PART = 2**22


def largest_norm(data: Tensor) -> float:
    """max_i |x_i| in model space, of data [N, *shape] as stored."""
    parts = data.split(max(1, _PART // data[0].numel()))
    return float(torch.stack([model_space(part, torch.float64).flatten(1).norm(dim=1).max() for part in parts]).max())


def least_scale(largest: float) -> float:
    """max(0.01 max_i |x_i|, 1e-300): what `tol` of a small answer is relative to; largest: `largest_norm`."""
    return max(SMALL * largest, _LEAST)


def errors(found: Tensor, exact: Tensor, largest: float) -> Tensor:
    """|r - r64| / max(|r64|, 0.01 max_i |x_i|), float64 [B], on the device of exact.

    found, exact  r and r64 [B, *shape]
    largest       max_i |x_i|: `largest_norm`
    """
    return _relative(
        found.to(exact.device).flatten(1), exact.flatten(1), exact.new_tensor(largest, dtype=torch.float64)
    )


def largest_error(found: Tensor, exact: Tensor, largest: float) -> float:
    """The largest of `errors`; 0 of no queries."""
    return max(errors(found, exact, largest).tolist(), default=0.0)


def pixel_errors(found: Tensor, exact: Tensor, largest: Tensor) -> Tensor:
    """The same of each pixel, [B, H, W], with norms over channels: what `tol` of local denoisers bounds.

    found, exact [B, C, H, W]; largest [H, W]: max_i |x_i(p)|
    """
    return _relative(found.movedim(1, -1), exact.movedim(1, -1), largest)


def log_prob_errors(found: Tensor, exact: Tensor) -> Tensor:
    """|log p - log p64| / (1e-3 + 1e-6 |log p64|), float64 [B]: at most 1 is allowed."""
    exact = exact.double()
    return _infinite((found.to(exact) - exact).abs() / log_prob_allowed(exact))


def log_prob_allowed(exact: Tensor) -> Tensor:
    """1e-3 + 1e-6 |log p64|: what log p may be off by."""
    return LOG_TOL + _LOG_TOL_SHARE * exact.abs()


def _relative(found: Tensor, exact: Tensor, largest: Tensor) -> Tensor:
    """`errors` of vectors along the last axis."""
    exact = exact.double()
    scale = torch.maximum(exact.norm(dim=-1), (SMALL * largest.double()).clamp_min(_LEAST))
    return _infinite((found.double() - exact).norm(dim=-1) / scale)


def _infinite(values: Tensor) -> Tensor:
    """values with infinity for NaN; infinity stays, which `nan_to_num` by itself would make a number."""
    return values.nan_to_num(nan=torch.inf, posinf=torch.inf)
