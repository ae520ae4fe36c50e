"""What two looks at all rows find out (norms, mean, distances from it), made once for a mapped file and kept beside it.

A process that is killed has kept what it had found up to half a minute before, and the next goes on from there, to the
same bits.
"""

import ctypes
import time
from typing import Any

import torch
from torch import Tensor

from geodiff.backends.mapped_file import MappedFile
from geodiff.backends.sidecar_file import SidecarFile
from geodiff.base.dtypes import number_of

try:
    from geodiff import _cpu
except ImportError:  # a source tree that was never built
    _cpu = None  # type: ignore[assignment]

#: Bytes of a step, after which what was found may be kept, and seconds between one time and the next.
STEP, EVERY = 2**30, 30.0
SUFFIX, FORMAT = "geodiff-stats", "2"  # which changes whenever the numbers do
_NUMBERS = 4  # of `_cpu.Statistics.numbers`


def statistics_of(rows: Tensor, file: MappedFile | None) -> Any:
    """The `_cpu.Statistics` of rows [n, d], which lie contiguous on the CPU.

    file  that they are mapped from, if they are
    Raises ValueError(row) for NaN or Inf, DataError where the file cannot be read.
    """
    n, d = rows.shape
    size = rows.numel() * rows.element_size()
    kept = SidecarFile.worth(rows, file, SUFFIX, FORMAT)
    found = _cpu.Statistics(n, d)
    if kept is not None:
        _fill(found, kept, n, d)
    path = "" if file is None else file.path
    step = n if kept is None else max(1, STEP * n // size)
    since = time.monotonic()
    while found.seen < 2 * n:
        found.look(rows.data_ptr(), number_of(rows.dtype), path, torch.get_num_threads(), step)
        if kept is not None and (found.seen == 2 * n or time.monotonic() - since > EVERY):
            _keep(found, kept, n, d)
            since = time.monotonic()
    return found


def _keep(found: Any, kept: SidecarFile, n: int, d: int) -> None:
    numbers = torch.tensor(found.numbers, dtype=torch.float64, device="cpu")
    kept.write({**_arrays(found, n, d), "numbers": numbers, "seen": torch.tensor(found.seen, device="cpu")})


def _fill(into: Any, kept: SidecarFile, n: int, d: int) -> None:
    """Fills in what was kept, if anything was."""
    arrays = _arrays(into, n, d)
    stored = kept.read((*arrays, "numbers", "seen"))
    if stored is None or stored["numbers"].shape != (_NUMBERS,):
        return
    if all(stored[name].shape == values.shape for name, values in arrays.items()):
        for name, values in arrays.items():
            values.copy_(stored[name])
        into.numbers, into.seen = stored["numbers"].tolist(), int(stored["seen"])


def _arrays(of: Any, n: int, d: int) -> dict[str, Tensor]:
    """The arrays of statistics as tensors over their memory."""

    def over(address: int, kind: Any, count: int, dtype: torch.dtype) -> Tensor:
        return torch.frombuffer((kind * count).from_address(address), dtype=dtype)

    return {
        "half_norm": over(of.half_norm, ctypes.c_double, n, torch.float64),
        "half_away": over(of.half_away, ctypes.c_double, n, torch.float64),
        "away": over(of.away, ctypes.c_float, n, torch.float32),
        "mean": over(of.mean, ctypes.c_double, d, torch.float64),
    }
