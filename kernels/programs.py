"""What a program of a local denoiser is for: which query, candidates, channels and pixels."""

import triton
import triton.language as tl


@triton.jit
def query_and_rows(B, candidates, per_part):
    """The query of a program, its part of the candidates, and the first of these, and the one behind the last."""
    b, part = (tl.program_id(0) % B).to(tl.int64), tl.program_id(1).to(tl.int64)
    return b, part, part * per_part, tl.minimum(candidates, (part + 1) * per_part)


@triton.jit
def channels_and_tile(piece, channels, width, G: tl.constexpr, USED: tl.constexpr):
    """The first channel of a program, and the first line and column of its tile, of images of so many columns."""
    groups, across = (channels + G - 1) // G, (width + USED - 1) // USED
    tile = piece // groups
    return piece % groups * G, tile // across * USED, tile % across * USED


@triton.jit
def scale_of(sigma_ptr, b, unit):
    """1 / 2 sigma^2 in centred units."""
    sigma = tl.load(sigma_ptr + b) * unit
    return 0.5 / (sigma * sigma)


@triton.jit
def further(first, left, C: tl.constexpr):
    """Where there are a second, third and fourth channel, of `left`, where `first` is. C: 0, or all that are summed."""
    if C > 0:
        return first, first, first
    else:
        left += tl.zeros_like(first).to(tl.int32)
        return first & (left > 1), first & (left > 2), first & (left > 3)
