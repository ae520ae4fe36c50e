"""Class labels: checks for those of the data and those that a call asks for."""

import numpy as np
import torch
from torch import Tensor

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def check_labels(labels: object, n: int) -> Tensor:
    """labels as int64 [N] on the CPU. Raises TypeError unless integers, ValueError for a wrong shape or a negative."""
    found = _integers(labels, "labels", "int [N]")
    if found.shape != (n,):
        raise ValueError(f"labels: expected shape [N] = [{n}], found {list(found.shape)}; allowed one per data point")
    if (found < 0).any():
        raise ValueError(f"labels: expected classes 0, 1, ..., found {int(found.min())}; allowed >= 0")
    return found


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
        one_hot = torch.as_tensor(class_labels)
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
    bad = found[(found < 0) | (found >= classes)]
    if bad.numel():
        raise ValueError(f"class_labels: expected a class, found {int(bad[0])}; allowed 0 .. {classes - 1}")
    return found.cpu()


def _integers(values: object, name: str, allowed: str) -> Tensor:
    try:
        found = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected integers, found {type(values).__name__}; allowed {allowed}") from error
    if found.dtype not in _INTEGERS:
        raise TypeError(f"{name}: expected integers, found {found.dtype}; allowed {allowed}")
    return found.to("cpu", torch.int64)
