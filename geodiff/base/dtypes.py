"""Which dtypes are taken where."""

from typing import NamedTuple

import torch

#: Of data as stored. Their places are their numbers in csrc/common/stored.h.
STORED = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)
#: Of queries.
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
#: Of classes and other counts.
INTEGERS = (
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
)
#: Of what is computed in.
PRECISE = (torch.float32, torch.float64)


def number_of(stored: torch.dtype) -> int:
    """The number of a storage dtype in the compiled cores."""
    return STORED.index(stored)


class Units(NamedTuple):
    """How centred units v, which kernels read, become model space: (v + shift) / unit."""

    shift: float
    unit: float


def centred_units(stored: torch.dtype) -> Units:
    """u/127.5 - 1 of v = u - 128 for uint8, which holds v exactly in 8 bits; else v is the value."""
    return Units(0.5, 127.5) if stored == torch.uint8 else Units(0.0, 1.0)
