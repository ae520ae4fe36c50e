"""What a data set is made of, as tensors: torch operators take tensors and numbers, and cannot carry a Python object.

A number would do in one process only. Tensors go along wherever a graph goes: into an exported program's file, a
compiled model, another process; so the data that a graph was made with are the data that it answers from.
"""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakSet

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from geodiff.data.digest import digest

if TYPE_CHECKING:
    from geodiff.denoiser.point_set import PointSet


class Content(NamedTuple):
    """All that determines a posterior, beside the query; everything but rows may be missing.

    rows    [N, d] as stored
    order   int64 [N]: row j is data point order[j]
    groups  int64 [k, 3], for each class that has points: class, first row, last row + 1
    prior   [N] float64: log pi
    flip    int64 [d]: the order that mirrors a point, where mirror images count
    backend "auto", or the name of one
    """

    rows: Tensor
    order: Tensor | None
    groups: Tensor | None
    prior: Tensor | None
    flip: Tensor | None
    backend: str

    @property
    def key(self) -> tuple[object, ...]:
        """The same for the same memory, whatever tensor shows it; it holds as long as the memory is kept."""
        places = [
            None if one is None else (one.untyped_storage()._cdata, one.storage_offset(), one.shape, one.dtype)
            for one in self[:-1]
        ]
        return (*places, self.backend)

    def digest(self) -> bytes:
        """sha256 of the values of all of it, wherever it lies; how it is computed (the backend) aside."""
        found = hashlib.sha256()
        for name, values in zip(self._fields[:-1], self[:-1], strict=True):
            if values is not None:
                found.update(f"{name} {digest(values)};".encode())
        return found.digest()


_alive: dict[tuple[object, ...], "WeakSet[PointSet]"] = {}
# By the tensor of rows, which a loaded program keeps: what was made for it goes when it goes.
_made: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def register(points: "PointSet") -> None:
    """From now on `find` answers with these points for their content, as long as they live."""
    key = points.content.key
    for gone in [old for old, sets in list(_alive.items()) if not sets]:
        _alive.pop(gone, None)
    _alive.setdefault(key, WeakSet()).add(points)


def find(content: Content, make: "Callable[[Content], PointSet]") -> "PointSet":
    """The points of that content: of a denoiser that lives, else made once for the tensor of rows."""
    found = next(iter(_alive.get(content.key, ())), None)
    if found is not None:
        return found
    key, found = _made.get(content.rows, (None, None))
    if found is None or key != content.key:
        found = make(content)
        _made[content.rows] = (content.key, found)
    return found
