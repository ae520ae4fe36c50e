"""torchvision's data sets: their arrays where no transform changes the points, else item by item as any other data set.

Which axes `.data` has is a matter of the class: [N, H, W, C] for CIFAR, [N, C, H, W] for SVHN and STL10, [N, H, W] for
the MNIST family. Source: torchvision's public documentation. Nothing is imported from it.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from geodiff.base.array_like import view_array
from geodiff.data import items
from geodiff.data.dataset import Contents, as_labels
from geodiff.data.digest import digest
from geodiff.data.stream import Stream

_HWC, _CHW, _HW = "HWC", "CHW", "HW"
#: class -> (axes of one point in `.data`, where its labels are)
_ARRAYS = {
    "CIFAR10": (_HWC, "targets"),
    "CIFAR100": (_HWC, "targets"),
    "SVHN": (_CHW, "labels"),
    "STL10": (_CHW, "labels"),
    "MNIST": (_HW, "targets"),
    "FashionMNIST": (_HW, "targets"),
    "KMNIST": (_HW, "targets"),
    "EMNIST": (_HW, "targets"),
    "QMNIST": (_HW, "targets"),
}
_TRANSFORMS = ("transform", "target_transform", "transforms")
_EMNIST = "HW viewed as CHW; images are transposed, as EMNIST stores them"


def is_source(source: object) -> bool:
    """Whether it is a data set of torchvision whose arrays are the points."""
    known = type(source).__module__.startswith("torchvision.datasets") and type(source).__name__ in _ARRAYS
    return known and all(getattr(source, name, None) is None for name in _TRANSFORMS)


def open_stream(source: Any) -> Stream:
    """Its points as uint8 [N, C, H, W], a view of `.data`, and its labels; none where STL10 has unlabelled images."""
    name = type(source).__name__
    axes, label_name = _ARRAYS[name]
    data = _tensor(source.data)
    if axes == _HWC:
        data = data.permute(0, 3, 1, 2)
    elif axes == _HW:
        data = data[:, None]
    labels = as_labels(_tensor(getattr(source, label_name)), len(data), name) if name != "QMNIST" else _qmnist(source)
    unlabelled = labels is not None and bool((labels < 0).any())
    classes = items.classes_of(source)
    note = _EMNIST if name == "EMNIST" else ""
    contents = Contents(data, None if unlabelled else labels, classes, is_chw=True, note=note)
    return Stream.of(contents, name, lambda: f"{name} {digest(data)}")


def _qmnist(source: Any) -> Tensor:
    """The first of the eight numbers that compat=False keeps for each digit is its class."""
    targets = _tensor(source.targets)
    return as_labels(targets[:, 0] if targets.ndim == 2 else targets, len(targets), "QMNIST")


def _tensor(values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values
    return view_array(values) if isinstance(values, np.ndarray) else torch.as_tensor(values)
