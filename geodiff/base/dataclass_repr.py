"""How dataclasses of tensors print: by dtypes and shapes, as their values would fill the screen."""

import dataclasses
from typing import Any

import numpy as np
import torch


def by_shape(value: Any) -> str:
    """The repr of a dataclass, "Kind(mean=float32 [4, 1, 8, 8], ...)"; to be set as its __repr__."""
    fields = (f"{one.name}={_short(getattr(value, one.name, None))}" for one in dataclasses.fields(value) if one.repr)
    return f"{type(value).__name__}({', '.join(fields)})"


def _short(value: object) -> str:
    if isinstance(value, torch.Tensor | np.ndarray):
        place = f" on {value.device}" if isinstance(value, torch.Tensor) and value.device.type != "cpu" else ""
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}{place}"
    return repr(value)
