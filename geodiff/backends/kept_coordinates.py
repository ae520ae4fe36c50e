"""The principal coordinates of a mapped file's rows (csrc/cpu/products/shaping.h), made once and kept beside it."""

from typing import Any

import torch

from geodiff.backends.kept_beside import KeptBeside

#: How the file is called beside that of the rows, and of which format it is.
SUFFIX, FORMAT = "geodiff-coordinates", "1"


class KeptCoordinates:
    """Of the rows of a `_cpu.Data`: read when they are wanted, and written once they have been made."""

    def __init__(self, data: Any, kept: KeptBeside) -> None:
        self._data, self._kept, self._asked, self._settled = data, kept, False, False

    def read(self) -> None:
        """Takes what was kept, unless that has been tried."""
        if self._asked or self._data.shaped:
            return
        self._asked = True
        stored = self._kept.read(("coordinates",))
        if stored is not None and stored["coordinates"].numel() == self._data.coordinates_bytes:
            self._data.read_coordinates(stored["coordinates"].data_ptr())
            self._settled = True

    def write(self) -> None:
        """Keeps what has been made meanwhile, if anything has."""
        if self._settled or not self._data.shaped:
            return
        self._settled = True
        made = torch.empty(self._data.coordinates_bytes, dtype=torch.uint8, device="cpu")
        self._data.write_coordinates(made.data_ptr())
        self._kept.write({"coordinates": made})
