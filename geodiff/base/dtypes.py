"""Which dtypes are taken where."""

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
