"""Any source as one memory-mapped .npy, piece by piece: for data larger than memory, and to decode only once."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from geodiff.base.errors import DataError
from geodiff.base.files import atomic_path
from geodiff.data.dataset import Dataset
from geodiff.data.loading import load, open_stream

_HEADER = 256  # bytes, with room for any N: the header is written last, when N is known


def convert(
    source: Any,
    out: str | os.PathLike[str],
    *,
    split: str = "train",
    mode: str | None = None,
    key: str | None = None,
    limit: int | None = None,
    progress: Callable[[int, int | None], object] = lambda done, total: None,
) -> Dataset:
    """Write NAME.npy, and NAME_labels.npy where there are labels, from any source of `load`; return what `load` reads.

    out       NAME.npy. While it is being made its points are in NAME.npy.part; a run that was interrupted goes on there
    progress  called as progress(points done, points in all or None) after each piece
    Memory is a piece, 16 MiB, and what the format itself unpacks at once. bfloat16 is refused: .npy has no such dtype.
    Raises as `load` does, and ValueError for an `out` with another suffix, or whose .part belongs to another source.
    """
    target = Path(out)
    if target.suffix != ".npy":
        raise ValueError(f"out: expected a name in .npy, found {target.name!r}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"out: expected a file in an existing folder, found no folder {target.parent}")
    stream = open_stream(source, split, mode, key)
    total = stream.count if limit is None or stream.count is None else min(limit, stream.count)
    part = _Part.opened(target, f"{stream.identity()} {split} {mode}", limit)
    progress(part.count, total)
    if limit is None or part.count < limit:
        for piece in stream.read(part.count):
            room = None if limit is None else limit - part.count
            part.append(piece.data[:room], None if piece.labels is None else piece.labels[:room])
            progress(part.count, total)
            if limit is not None and part.count >= limit:
                break
    part.finish()
    return load(target)


@dataclass
class _Part:
    """Files in the making. The rows that are whole are those that count, so that nothing else need be noted."""

    target: Path
    identity: str
    shape: tuple[int, ...] = ()  # of a point
    dtype: str = ""
    labelled: bool = False
    count: int = 0

    @property
    def points(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def labels(self) -> Path:
        return self.target.with_name(f"{self.target.stem}_labels.npy.part")

    @property
    def notes(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part.json")

    @property
    def _row(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    @classmethod
    def opened(cls, target: Path, identity: str, limit: int | None) -> Self:
        """A new one, or the one that was left off."""
        made = cls(target, identity)
        if not made.notes.is_file() or not made.points.is_file():
            return made
        try:
            notes = json.loads(made.notes.read_text(encoding="utf-8"))
            made.shape, made.dtype, made.labelled = tuple(notes["shape"]), notes["dtype"], bool(notes["labelled"])
            found = notes["identity"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(made.notes, f"damaged ({error}); delete it to start anew") from error
        if found != identity:
            raise ValueError(
                f"out: {made.points} was begun from another source, split or mode; delete it to start anew, or give "
                f"another name"
            )
        sizes = [max(0, made.points.stat().st_size - _HEADER) // made._row]
        if made.labelled:
            sizes.append(max(0, made.labels.stat().st_size - _HEADER) // 8 if made.labels.is_file() else 0)
        made.count = min(*sizes, limit) if limit is not None else min(sizes)
        return made

    def append(self, data: Tensor, labels: Tensor | None) -> None:
        """More points; the files are cut to the rows that count first."""
        if data.dtype == torch.bfloat16:
            raise ValueError("source: found bfloat16 points, which .npy does not have; allowed .half() or .float()")
        shape, dtype = tuple(data.shape[1:]), str(data.dtype).removeprefix("torch.")
        if self.count == 0:
            self.shape, self.dtype, self.labelled = shape, dtype, labels is not None
            # First what another run may have left goes, so that notes never stand beside rows of another source.
            for left in (self.points, self.labels):
                left.unlink(missing_ok=True)
            notes = {"identity": self.identity, "shape": shape, "dtype": dtype, "labelled": self.labelled}
            with atomic_path(self.notes) as path:
                path.write_text(json.dumps(notes), encoding="utf-8")
        if (shape, dtype, labels is not None) != (self.shape, self.dtype, self.labelled):
            found, expected = f"{dtype} {list(shape)}", f"{self.dtype} {list(self.shape)}"
            raise DataError(self.points, f"points: found {found} after {expected}, or labels that come or go")
        _write(self.points, _HEADER + self.count * self._row, data.contiguous().numpy())
        if labels is not None:
            _write(self.labels, _HEADER + self.count * 8, labels.numpy())
        self.count += len(data)

    def finish(self) -> None:
        """Headers, then the names: labels first, so that points are never seen without them."""
        if self.count == 0:
            raise DataError(self.target.name, "expected points, found none")
        _close(self.points, np.dtype(self.dtype), (self.count, *self.shape), self._row)
        labels = self.target.with_name(f"{self.target.stem}_labels.npy")
        if self.labelled:
            _close(self.labels, np.dtype(np.int64), (self.count,), 8)
            os.replace(self.labels, labels)
        else:
            labels.unlink(missing_ok=True)  # of an older NAME.npy
        os.replace(self.points, self.target)
        self.notes.unlink()


def _write(path: Path, offset: int, values: "np.ndarray[Any, Any]") -> None:
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(offset)  # drops half a row that an interruption left
        file.seek(offset)
        file.write(values.tobytes())


def _close(path: Path, dtype: "np.dtype[Any]", shape: tuple[int, ...], row: int) -> None:
    """The header of .npy, version 1.0, padded to _HEADER bytes."""
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    text = repr(described).encode("latin1")
    prefix = b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little")
    with path.open("r+b") as file:
        file.truncate(_HEADER + shape[0] * row)
        file.write(prefix + text.ljust(_HEADER - 11) + b"\n")
