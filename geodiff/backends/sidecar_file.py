"""A sidecar: what was found out about rows of a mapped file, in a safetensors file beside it.

    imagenet64.npy.128-15742979.geodiff-stats     of the rows in those bytes of imagenet64.npy

It belongs to the file as it was: its size, its time of modification, and a sum over bytes spread over the rows. What
belongs to another is not read, and where nothing can be written, nothing is kept.
"""

from collections.abc import Collection
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from geodiff.backends.mapped_file import MappedFile
from geodiff.base.files import atomic_path

try:
    from geodiff import _cpu
except ImportError:  # a source tree that was never built
    _cpu = None  # type: ignore[assignment]

#: Bytes of rows that are looked at again sooner than a file of them is read and checked.
WORTH = 2**28


class SidecarFile:
    """Tensors about rows [n, d] that lie contiguous in the map of a file.

    suffix  of the file's name; format changes whenever the numbers do
    """

    def __init__(self, rows: Tensor, file: MappedFile, suffix: str, format: str) -> None:
        self._rows, self._file, self._format = rows, file, format
        self.path = Path(f"{file.path}.{file.offset}-{_bytes(rows)}.{suffix}")

    @cached_property
    def _belongs_to(self) -> dict[str, str]:
        """What tells the rows from others; its sum takes a moment, so that it is made when it is wanted."""
        rows, file = self._rows, self._file
        return {
            "format": self._format,
            "rows": f"{rows.dtype} {list(rows.shape)}",
            "size and time": f"{file.size} {file.modified}",
            "sum": str(_cpu.checksum(rows.data_ptr(), _bytes(rows), file.path)),
        }

    @classmethod
    def worth(cls, rows: Tensor, file: MappedFile | None, suffix: str, format: str) -> "SidecarFile | None":
        """None where the rows are of no file, or of too few bytes."""
        return cls(rows, file, suffix, format) if file is not None and _bytes(rows) >= WORTH else None

    def read(self, names: Collection[str]) -> dict[str, Tensor] | None:
        """Those tensors; None where they are damaged, of other rows, or of rows written to in memory."""
        with suppress(OSError, SafetensorError), safe_open(self.path, framework="pt") as archive:
            told = archive.metadata() or {}
            if {key: told.get(key) for key in self._belongs_to} == self._belongs_to:
                stored = {name: archive.get_tensor(name) for name in names}
                return stored if self._file.holds(self._rows) else None
        return None

    def write(self, tensors: dict[str, Tensor]) -> None:
        """Keeps them, where the folder may be written to."""
        if self._file.holds(self._rows):
            with suppress(OSError), atomic_path(self.path) as path:
                save_file(tensors, path, self._belongs_to)


def _bytes(rows: Tensor) -> int:
    return rows.numel() * rows.element_size()
