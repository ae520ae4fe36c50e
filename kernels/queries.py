"""Queries as sums of numbers that tensor cores multiply exactly, with what is left over known."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Parts:
    """x = scale * sum_p weight_p parts[p] + delta, p = 0..P-1; weight_p = 256^(P-1-p) for int8 digits, 1 for floats.

    parts    [P, B, d] int8, float16 or bfloat16
    scale    [B] float64
    residual [B] float64  |delta|
    step     [B] float64  standard deviation of one coordinate of delta where it was rounded at random, else 0
    """

    parts: Tensor
    scale: Tensor
    residual: Tensor
    step: Tensor


def digits(x: Tensor, count: int, *, dithered: bool) -> Parts:
    """x [B, d] float64 as `count` balanced base-256 digits in int8, whose products with bytes are exact integers.

    dithered: round up or down at random, by a fixed pattern, so that the error has mean zero; else to the nearest.
    """
    units = 127 * 256 ** (count - 1)
    step = x.abs().amax(1).clamp_min(1e-300) / units  # [B]
    exact = x / step[:, None]
    rounded = (exact + (_dither(x.shape[1], x.device) if dithered else 0.5)).floor().clamp(-units, units)
    residual = (exact - rounded).norm(dim=1) * step
    value = rounded.long()
    parts = torch.empty(count, *x.shape, dtype=torch.int8, device=x.device)
    for part in range(count - 1, 0, -1):
        low = ((value + 128) & 255) - 128
        parts[part] = low
        value = (value - low) >> 8
    parts[0] = value
    return Parts(parts, step, residual, step / 6**0.5 if dithered else torch.zeros_like(step))


def floats(x: Tensor, dtype: torch.dtype) -> Parts:
    """x [B, d] float64 as three numbers of float16 or bfloat16 each: 33 or 24 bits."""
    # A power of two, so nothing is rounded: values near 2^8 leave float16 room below for the smaller parts.
    scale = torch.exp2(x.abs().amax(1).clamp_min(1e-300).log2().floor() - 8)
    left = x / scale[:, None]
    parts = torch.empty(3, *x.shape, dtype=dtype, device=x.device)
    for part in range(3):
        parts[part] = left
        left = left - parts[part].double()
    return Parts(parts, scale, left.norm(dim=1) * scale, torch.zeros_like(scale))


def split(x: Tensor, stored: torch.dtype, count: int, *, dithered: bool) -> Parts:
    """The parts of x [B, d] float64 that suit data of dtype `stored`; `count` digits for uint8."""
    if stored == torch.uint8:
        return digits(x, count, dithered=dithered)
    return floats(x, torch.float16 if stored == torch.float16 else torch.bfloat16)


@lru_cache(maxsize=16)  # made on the host, which would otherwise wait for the copy in every call
def _dither(d: int, device: torch.device) -> Tensor:
    return torch.rand(d, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(device)
