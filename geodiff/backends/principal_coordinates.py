"""The principal coordinates of a mapped file's rows (csrc/cpu/products/shaping.h), made once and kept beside it."""

from typing import TYPE_CHECKING, Any

import torch

from geodiff.backends.sidecar_file import SidecarFile

if TYPE_CHECKING:  # where it was never built, nothing here is called
    from geodiff import _cpu

#: How the file is called beside that of the rows, and of which format it is.
SUFFIX, FORMAT = "geodiff-coordinates", "3"
#: Calls of a single query after which the file is read: to read it takes longer than a few of them.
SINGLE_CALLS = 16


class WithKeptCoordinates:
    """A `_cpu.Data` that takes coordinates from the file before a call makes them, and keeps those that were made."""

    def __init__(self, data: "_cpu.Data", beside: SidecarFile) -> None:
        self._data, self._beside, self._asked, self._settled = data, beside, False, False
        self._single_calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)

    def shape(self, isa: str, threads: int) -> None:
        self._read()
        self._data.shape(isa, threads)
        self._write()

    def posterior(self, query: "_cpu.Query", topk: int, answer: "_cpu.Answer") -> None:
        self._read_for(query)
        self._data.posterior(query, topk, answer)
        self._write()

    def combine(self, query: "_cpu.Query", **given: Any) -> int:
        self._read_for(query)
        rows = self._data.combine(query=query, **given)
        self._write()
        return rows

    def _read_for(self, query: "_cpu.Query") -> None:
        self._single_calls += query.batch == 1
        if query.batch > 1 or self._single_calls > SINGLE_CALLS:
            self._read()

    def _read(self) -> None:
        """Takes what was kept, unless that has been tried."""
        if self._asked or self._data.shaped:
            return
        self._asked = True
        stored = self._beside.read(("coordinates",))
        if stored is not None and stored["coordinates"].numel() == self._data.coordinates_bytes:
            self._data.read_coordinates(stored["coordinates"].data_ptr())
            self._settled = True

    def _write(self) -> None:
        """Keeps what has been made meanwhile, if anything has."""
        if self._settled or not self._data.shaped:
            return
        self._settled = True
        made = torch.empty(self._data.coordinates_bytes, dtype=torch.uint8, device="cpu")
        self._data.write_coordinates(made.data_ptr())
        self._beside.write({"coordinates": made})
