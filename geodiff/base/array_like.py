"""Numbers from elsewhere as tensors: arrays, lists, and what has __dlpack__ or __array__ (JAX, CuPy)."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
import torch.utils.dlpack
from torch import Tensor

_T = TypeVar("_T")
#: What is taken where numbers are: a tensor, an array, a list, or anything with __dlpack__ or __array__.
Array: TypeAlias = Any
#: What an argument may be where it says "array".
ARRAYS = "a tensor, array or list, or anything with __dlpack__ or __array__"


def as_tensor(value: object, name: str, listed: torch.dtype | None = None) -> Tensor:
    """A tensor over the same memory where there is memory to share: arrays are viewed, a list is copied.

    A tensor is returned as it is. A list becomes of dtype `listed`; without one, Python's floats become float32, as
    they do in torch, and integers stay what they are.
    Raises TypeError or ValueError that names the argument for what no tensor can show.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray):
        return _view(value, name)
    # Not first: arrays of numpy have both, too, and refuse the first where they are read-only.
    if hasattr(value, "__dlpack__"):
        try:
            return torch.utils.dlpack.from_dlpack(value)
        except (TypeError, ValueError, RuntimeError, BufferError):
            if not hasattr(value, "__array__"):
                raise
    if hasattr(value, "__array__"):
        return _view(np.asarray(value), name)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return _from_list(value, name, listed)
    # What `geodiff.data.load` returns, and others that hold what is wanted.
    hint = "; pass its .data" if isinstance(getattr(value, "data", None), Tensor) else ""
    raise TypeError(f"{name}: expected a tensor or array, found {type(value).__name__}; allowed {ARRAYS}{hint}")


def view_array(array: np.ndarray[Any, Any]) -> Tensor:
    """The array as a tensor over the same memory. Raises TypeError or ValueError where torch has no such view."""
    with warnings.catch_warnings():
        # Nothing in this package writes to the data, and a map opened with mode 'r' is the usual large array.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def like(value: _T, asked: object) -> _T:
    """An answer (a tensor, or a dataclass of tensors) in the kind of the query: arrays for an array, else as it is."""
    if not isinstance(asked, np.ndarray):
        return value
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()  # type: ignore[return-value]
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}  # type: ignore[arg-type]
    arrays = {name: like(field, asked) for name, field in fields.items() if isinstance(field, Tensor)}
    return dataclasses.replace(value, **arrays)  # type: ignore[type-var]


def _view(array: np.ndarray[Any, Any], name: str) -> Tensor:
    if not array.dtype.isnative:
        raise ValueError(
            f"{name}: array of dtype {array.dtype.str} in the byte order of other machines; "
            f"allowed array.astype(array.dtype.newbyteorder('='))"
        )
    if any(stride < 0 for stride in array.strides):
        found = f"array of dtype {array.dtype} with negative strides {array.strides}"
        raise ValueError(f"{name}: {found}, which a tensor cannot have; allowed array.copy()")
    try:
        return view_array(array)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: array of dtype {array.dtype} cannot be viewed as a tensor: {error}") from error


def _from_list(values: Sequence[Any], name: str, dtype: torch.dtype | None) -> Tensor:
    try:
        if values and all(isinstance(one, Tensor) for one in values):
            return torch.stack(list(values)).to(dtype)
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name}: expected equally long lists of numbers, found others; allowed {ARRAYS} ({error})"
        ) from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected numbers, found a list of {array.dtype}; allowed {ARRAYS}")
    return _view(array, name).to(torch.float32 if dtype is None and array.dtype == np.float64 else dtype)
