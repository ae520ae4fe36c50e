"""Class labels: checks for those of the data and those that a call asks for."""

import numpy as np
import torch
from torch import Tensor

from geodiff.base.array_like import as_tensor
from geodiff.base.dtypes import INTEGERS


def check_labels(labels: object, n: int) -> Tensor:
    """labels as int64 [N] on the CPU. Raises TypeError unless integers, ValueError for a wrong shape or a negative."""
    found = _integers(labels, "labels", "int [N]")
    if found.shape != (n,):
        raise ValueError(f"labels: expected shape [N] = [{n}], found {list(found.shape)}; allowed one per data point")
    if (found < 0).any():
        raise ValueError(f"labels: expected classes 0, 1, ..., found {int(found.min())}; allowed >= 0")
    return found


def group(classes: Tensor) -> tuple[Tensor | None, Tensor]:
    """How points lie by class: their order if that is another one, and int64 [k, 3]: class, first row, last row + 1.

    classes: int64 [N] on the CPU. Only the k classes that have points are listed, so that labels may be ids.
    """
    order = classes.argsort(stable=True) if (classes.diff() < 0).any() else None
    present, counts = (classes if order is None else classes[order]).unique_consecutive(return_counts=True)
    ends = counts.cumsum(0)
    return order, torch.stack([present, ends - counts, ends], 1)


def shape_requested_classes(class_labels: object, batch: int, classes: int) -> Tensor | None:
    """class_labels as int64 [B] or one-hot [B, K], as it was given; None stays None (all data). Values are not read.

    Raises ValueError if the data have no labels or for a wrong shape, TypeError for something else than integers (a
    one-hot may be floating or bool).
    """
    if class_labels is None:
        return None
    if classes == 0:
        raise ValueError("class_labels: expected None, found classes; allowed only with OptimalDenoiser(labels=...)")
    if isinstance(class_labels, (Tensor, np.ndarray)) and class_labels.ndim == 2:
        one_hot = as_tensor(class_labels, "class_labels")
        if one_hot.shape != (batch, classes):
            raise ValueError(
                f"class_labels: expected a one-hot [B, K] = [{batch}, {classes}], found shape {list(one_hot.shape)}; "
                f"allowed one column per class"
            )
        return one_hot
    found = _integers(class_labels, "class_labels", f"int [B] or one-hot [B, {classes}]")
    if found.ndim == 0:
        found = found.expand(batch)
    if found.shape != (batch,):
        raise ValueError(
            f"class_labels: expected shape [B] = [{batch}] or [B, K] = [{batch}, {classes}], "
            f"found {list(found.shape)}; allowed one class per query"
        )
    return found


def check_requested_classes(found: Tensor, classes: int) -> Tensor:
    """int64 [B] on the CPU, from what `shape_requested_classes` returned.

    Raises ValueError for a class out of range, or rows that are not one-hot.
    """
    if found.ndim == 2:
        hot = found != 0
        if not ((hot.sum(1) == 1) & (found.sum(1) == 1)).all():
            raise ValueError(
                "class_labels: expected one-hot rows, found others; allowed a single 1 and zeros in each row"
            )
        return hot.int().argmax(1).cpu()
    bad = found[(found < 0) | (found > classes - 1)]
    if bad.numel():
        raise ValueError(f"class_labels: expected a class, found {int(bad[0])}; allowed 0 .. {classes - 1}")
    return found.cpu()


def _integers(values: object, name: str, allowed: str) -> Tensor:
    try:
        foreign = hasattr(values, "__dlpack__") or hasattr(values, "__array__")
        found = as_tensor(values, name) if foreign else torch.as_tensor(values, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected integers, found {type(values).__name__}; allowed {allowed}") from error
    if found.dtype not in INTEGERS:
        raise TypeError(f"{name}: expected integers, found {found.dtype}; allowed {allowed}")
    return found.to("cpu", torch.int64)
