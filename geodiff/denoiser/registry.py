"""Data sets by number: torch operators take tensors and numbers, and cannot carry a Python object."""

import itertools
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from geodiff.denoiser.point_set import PointSet

_alive: "WeakValueDictionary[int, PointSet]" = WeakValueDictionary()
_numbers = itertools.count(1)


def register(points: "PointSet") -> int:
    """A number by which `find` finds the data set as long as it lives."""
    number = next(_numbers)
    _alive[number] = points
    return number


def find(number: int) -> "PointSet":
    """The data set of that number; ReferenceError if it is gone."""
    found = _alive.get(number)
    if found is None:
        raise ReferenceError(
            f"data: expected a living data set, found number {number}; allowed while its denoiser is kept"
        )
    return found
