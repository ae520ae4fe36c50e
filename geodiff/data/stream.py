"""A source read piece by piece, in order: what `load` puts together, and `convert` writes down as it comes."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from geodiff.base.errors import DataError
from geodiff.data.dataset import Contents, check_points

#: Bytes of points in a piece, about.
PIECE = 2**24


class Item(NamedTuple):
    """One point as a reader finds it.

    point  [*shape], in the dtype it is to be stored in
    label  an integer, or [k] float32 of numbers; None where the source has none
    where  how an error calls it
    """

    point: Tensor
    label: int | Tensor | None
    where: str


@dataclass(frozen=True, eq=False)
class Stream:
    """A source that can be read from any point on.

    name      the source's own, without its folder
    identity  what it is, asked when needed, for it may take a pass: another text means another source
    read      read(first) yields pieces of all points from `first` on
    count     how many points there are; None where only reading tells
    """

    name: str
    identity: Callable[[], str]
    read: Callable[[int], Iterator[Contents]]
    count: int | None = None

    @classmethod
    def of(cls, contents: Contents, name: str, identity: Callable[[], str]) -> "Stream":
        """What has been read, or mapped, already."""
        data = contents.data
        step = max(1, PIECE // max(1, data[:1].numel() * data.element_size()))

        def read(first: int) -> Iterator[Contents]:
            for start in range(first, len(data), step):
                part = slice(start, start + step)
                labels, vectors = (None if v is None else v[part] for v in (contents.labels, contents.vectors))
                yield contents._replace(data=data[part], labels=labels, vectors=vectors)

        return cls(name, identity, read, len(data))

    def contents(self, limit: int | None = None) -> Contents:
        """All of it, or the first `limit` points. Raises DataError where there are none."""
        total = self.count if limit is None or self.count is None else min(self.count, limit)
        pieces: list[Contents] = []
        data: Tensor | None = None  # of all points, where their number is known: never twice in memory
        have = 0
        for piece in self.read(0):
            if limit is not None and have >= limit:
                break
            count = len(piece.data)
            if total is not None and count < total:
                if data is None:
                    data = piece.data.new_empty(total, *piece.data.shape[1:])
                count = min(count, total - have)
                data[have : have + count] = piece.data[:count]
                piece = piece._replace(data=data[have : have + count])
            pieces.append(piece)
            have += count
        if not pieces:
            raise DataError(self.name, "expected points, found none")
        if data is None:
            data = pieces[0].data if len(pieces) == 1 else torch.cat([piece.data for piece in pieces])
        labels, vectors = (_joined([getattr(piece, name) for piece in pieces]) for name in ("labels", "vectors"))
        labels, vectors = (None if found is None else found[: len(data)] for found in (labels, vectors))
        return pieces[0]._replace(data=data[:have], labels=labels, vectors=vectors)


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    found = [part for part in parts if part is not None]
    return torch.cat(found) if found else None


def stacked(items: Iterable[Item], like: Contents | None = None) -> Iterator[Contents]:
    """Items as pieces; all must have the shape and dtype of the first, and a label if it has one.

    like: what every piece is besides points and labels. Raises DataError that names the item that does not fit.
    """
    first: Item | None = None
    waiting: list[Item] = []
    for item in items:
        if first is None:
            check_points(item.point[None], item.where)
            first = item
        _check_alike(item, first)
        waiting.append(item)
        if len(waiting) * item.point.numel() * item.point.element_size() >= PIECE:
            yield _piece(waiting, like)
            waiting = []
    if waiting:
        yield _piece(waiting, like)


def _check_alike(item: Item, first: Item) -> None:
    if item.point.shape != first.point.shape:
        found, expected = ("x".join(map(str, one.point.shape)) for one in (item, first))
        raise DataError(
            item.where,
            f"size: found {found}, expected {expected} as of {first.where}; bring all points to one size first",
        )
    if item.point.dtype != first.point.dtype:
        found, expected = (str(one.point.dtype).removeprefix("torch.") for one in (item, first))
        raise DataError(item.where, f"dtype: found {found}, expected {expected} as of {first.where}")
    if isinstance(item.label, int) and not -(2**63) <= item.label < 2**63:
        raise DataError(
            item.where, f"label: found {item.label}, allowed what int64 holds; number the classes 0, 1, ..."
        )
    if _kind(item.label) != _kind(first.label):
        raise DataError(
            item.where,
            f"label: found {_kind(item.label)}, expected {_kind(first.label)} as of {first.where}; "
            f"give all points a label of one kind, or none",
        )


def _kind(label: int | Tensor | None) -> str:
    if label is None:
        return "none"
    return "an integer" if isinstance(label, int) else f"{label.numel()} numbers"


def _piece(items: list[Item], like: Contents | None) -> Contents:
    data = torch.stack([item.point for item in items])
    found = Contents(data, is_chw=data.ndim == 4) if like is None else like._replace(data=data)
    labels = [item.label for item in items if item.label is not None]
    if labels and isinstance(labels[0], int):
        return found._replace(labels=torch.tensor(labels, dtype=torch.int64, device="cpu"))
    if labels:
        return found._replace(vectors=torch.stack([label for label in labels if isinstance(label, Tensor)]))
    return found
