"""Rows as they were when engines were opened over them: where they lie, and whether they have changed.

torch moves the memory of a tensor without a word (share_memory_, a pickle for another process, resize_), and an engine
holds addresses and statistics.
"""

from torch import Tensor

from geodiff.backends import mapped_file

try:
    from geodiff import _cpu
except ImportError:
    _cpu = None  # type: ignore[assignment]


class Watch:
    """rows [N, d] at one moment. What is noticed afterwards:

    another address            torch moved them
    an operation of torch      by the version counter that all views of a tensor share
    a write behind its back    (numpy, `.data`) by a sum over 16 KiB spread over the rows: all there is, or most changes
    a change of a mapped file  by its size and time of modification
    """

    def __init__(self, rows: Tensor) -> None:
        self._rows, self._storage = rows, rows.untyped_storage()
        self._size = rows.numel() * rows.element_size()
        self._end = rows.storage_offset() * rows.element_size() + self._size
        self._version = None if rows.is_inference() else rows._version
        self._summed = _cpu is not None and rows.device.type == "cpu"
        self._file = mapped_file.find(rows)
        self._address = rows.data_ptr()
        self._sum = _cpu.checksum(self._address, self._size) if self._summed else 0

    def moved(self) -> bool:
        """Whether rows have another address than at the last look.

        Raises ValueError where their values have changed, DataError where their file has.
        """
        if self._storage.nbytes() < self._end:
            raise _changed(f"a storage resized to {self._storage.nbytes()} bytes")
        if self._version is not None and self._rows._version != self._version:
            raise _changed("an operation in place")
        address = self._rows.data_ptr()
        moved = address != self._address
        if moved:
            self._address, self._file = address, mapped_file.find(self._rows)
        elif self._file is not None:
            self._file.check()
        if self._summed and _cpu.checksum(address, self._size) != self._sum:
            raise _changed("other values")
        return moved


def _changed(found: str) -> ValueError:
    return ValueError(
        f"data: expected as they were when the denoiser was made, found {found} since; "
        f"allowed data that nobody writes to: OptimalDenoiser(data.clone()), or a new one after the change"
    )
