"""What two looks at all rows find out (norms, mean, distances from it), made once for a mapped file and kept beside it.

    imagenet64.npy.128-15742979.geodiff-stats     of the rows in those bytes of imagenet64.npy; safetensors

They belong to the file as it was: its size, its time of modification, and a sum over bytes spread over the rows. Others
are refused and made anew; where nothing can be written, they are made each time. A process that is killed has kept what
it had found up to half a minute before, and the next goes on from there, to the same bits.
"""

import ctypes
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from geodiff.backends.mapped_file import MappedFile
from geodiff.base.dtypes import number_of
from geodiff.base.files import atomic_path

try:
    from geodiff import _cpu
except ImportError:  # a source tree that was never built
    _cpu = None  # type: ignore[assignment]

#: Bytes of rows that are looked at again sooner than a file of them is read and checked.
WORTH = 2**28
#: Bytes of a step, after which what was found may be kept, and seconds between one time and the next.
STEP, EVERY = 2**30, 30.0
_FORMAT = "1"  # changes whenever the numbers do
_NUMBERS = 4  # of `_cpu.Statistics.numbers`


def statistics_of(rows: Tensor, file: MappedFile | None) -> Any:
    """The `_cpu.Statistics` of rows [n, d], which lie contiguous on the CPU.

    file  that they are mapped from, if they are
    Raises ValueError(row) for NaN or Inf, DataError where the file cannot be read.
    """
    n, d = rows.shape
    size = rows.numel() * rows.element_size()
    kept = _Kept(rows, file) if file is not None and size >= WORTH else None
    found = _cpu.Statistics(n, d)
    if kept is not None:
        kept.read(found)
    path = "" if file is None else file.path
    step = n if kept is None else max(1, STEP * n // size)
    since = time.monotonic()
    while found.seen < 2 * n:
        found.look(rows.data_ptr(), number_of(rows.dtype), n, d, path, torch.get_num_threads(), step)
        if kept is not None and (found.seen == 2 * n or time.monotonic() - since > EVERY):
            kept.write(found)
            since = time.monotonic()
    return found


class _Kept:
    """The file of the statistics of rows that are mapped from another."""

    def __init__(self, rows: Tensor, file: MappedFile) -> None:
        self._rows, self._file = rows, file
        size = rows.numel() * rows.element_size()
        self.path = Path(f"{file.path}.{file.offset}-{size}.geodiff-stats")
        self._belongs_to = {
            "format": _FORMAT,
            "rows": f"{rows.dtype} {list(rows.shape)}",
            "size and time": f"{file.size} {file.modified}",
            "sum": str(_cpu.checksum(rows.data_ptr(), size, file.path)),
        }

    def read(self, into: Any) -> None:
        """Fills in what was kept; nothing where that is damaged, of other rows, or of rows written to in memory."""
        with suppress(OSError, SafetensorError), safe_open(self.path, framework="pt") as archive:
            told = archive.metadata() or {}
            if {key: told.get(key) for key in self._belongs_to} != self._belongs_to:
                return
            arrays = _arrays(into, *self._rows.shape)
            stored = {name: archive.get_tensor(name) for name in (*arrays, "numbers", "seen")}
            whole = all(stored[name].shape == values.shape for name, values in arrays.items())
            if not whole or stored["numbers"].shape != (_NUMBERS,) or not self._file.holds(self._rows):
                return
            for name, values in arrays.items():
                values.copy_(stored[name])
            into.numbers, into.seen = stored["numbers"].tolist(), int(stored["seen"])

    def write(self, found: Any) -> None:
        """Keeps what was found up to now, where the folder may be written to."""
        if not self._file.holds(self._rows):
            return
        numbers = torch.tensor(found.numbers, dtype=torch.float64, device="cpu")
        seen = torch.tensor(found.seen, device="cpu")
        with suppress(OSError), atomic_path(self.path) as path:
            save_file({**_arrays(found, *self._rows.shape), "numbers": numbers, "seen": seen}, path, self._belongs_to)


def _arrays(of: Any, n: int, d: int) -> dict[str, Tensor]:
    """The arrays of statistics as tensors over their memory."""

    def over(address: int, kind: Any, count: int, dtype: torch.dtype) -> Tensor:
        return torch.frombuffer((kind * count).from_address(address), dtype=dtype)

    return {
        "half_norm": over(of.half_norm, ctypes.c_double, n, torch.float64),
        "away": over(of.away, ctypes.c_float, n, torch.float32),
        "mean": over(of.mean, ctypes.c_double, d, torch.float64),
    }
