"""What a loaded data set is, and what every file has to fulfil before it becomes one."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from geodiff.base.dataclass_repr import by_shape
from geodiff.base.dtypes import STORED
from geodiff.base.errors import DataError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Data points x_i, i = 1..N, in the dtype they are stored in (uint8 pixels u mean u/127.5 - 1).

    data: [N, *shape] uint8, float16, bfloat16 or float32; images are [N, C, H, W], possibly as a permuted view.
    labels: [N] int64, or None where the source has none.
    name: the built-in name or the file's or folder's own name, without its folder.
    layout: how source and axes were understood, in words: "CHW", "HWC viewed as CHW", "flat", "as given", ...
    classes: the name of each label where the source names them, otherwise empty.
    left_out: what lies in the source and was not read, by name; `load` warns of it.
    vectors: [N, k] float32, what the source says of each point in numbers (camera poses); None where it does not.
    latent: whether points are codes of images, whose mirror image is not the code of the mirrored image.
    """

    data: Tensor
    labels: Tensor | None
    name: str
    layout: str
    classes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    vectors: Tensor | None = None
    latent: bool = False

    __repr__ = by_shape

    def __len__(self) -> int:
        return self.data.shape[0]


class Contents(NamedTuple):
    """What a reader found in a file, before the axes are arranged."""

    data: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    is_chw: bool = False  # the format itself fixes the axes as [N, C, H, W]
    left_out: tuple[str, ...] = ()
    vectors: Tensor | None = None
    latent: bool = False
    note: str = ""  # what else Dataset.layout is to say


def check_points(data: Tensor, where: object) -> Tensor:
    """Returns data [N, *shape] itself; raises DataError unless N, every dimension and the dtype are usable."""
    if data.dtype not in STORED:
        raise dtype_error(str(data.dtype).removeprefix("torch."), where)
    if data.ndim == 0:
        raise DataError(where, "data: expected [N, *shape], found a single number; allowed 1 dimension or more")
    if data.numel() == 0:
        raise DataError(where, f"data: expected at least one point, found shape {tuple(data.shape)}, which is empty")
    return data


def dtype_error(found: str, where: object) -> DataError:
    """The one wording for a dtype that is not served, with the way out; converting unasked would be a hidden copy."""
    allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in STORED)
    return DataError(
        where,
        f"dtype: found {found}; allowed {allowed}; convert with array.astype('float32') (or 'uint8' for 0..255 pixels) "
        "and save again",
    )


def as_labels(values: "Tensor | np.ndarray[Any, Any]", count: int, where: object) -> Tensor:
    """Class labels as [count] int64; [count, 1] is taken too. Raises DataError for other shapes and non-integers."""
    if isinstance(values, Tensor):
        integer = not (values.dtype == torch.bool or values.is_floating_point() or values.is_complex())
    else:
        integer = values.dtype.kind in "iu"
    if not integer:
        raise DataError(where, f"labels: expected integers, found {str(values.dtype).removeprefix('torch.')}")
    if tuple(values.shape) not in ((count,), (count, 1)):
        raise DataError(where, f"labels: expected one per point, shape ({count},), found {tuple(values.shape)}")
    labels = values.to(torch.int64) if isinstance(values, Tensor) else torch.from_numpy(values.astype(np.int64))
    return labels.reshape(count)
