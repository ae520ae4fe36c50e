"""A name for values that is the same in every process and on every device: what stored work belongs to."""

import hashlib

import torch
from torch import Tensor

_ROWS = 4096  # that are hashed at a time


def digest(values: Tensor) -> str:
    """sha256 of the values [N, *shape], with shape and dtype, whatever the strides and the device."""
    found = hashlib.sha256(f"{tuple(values.shape)} {values.dtype}".encode())
    for rows in values.detach().split(_ROWS):
        found.update(rows.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
