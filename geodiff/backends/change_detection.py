"""Rows as they were when engines were opened over them: where they lie, and whether they have changed.

torch moves the memory of a tensor without a word (share_memory_, a pickle for another process, resize_), and an engine
holds addresses and statistics.
"""

from enum import Enum

from torch import Tensor

from geodiff.backends import mapped_file

try:
    from geodiff import _cpu
except ImportError:  # a source tree that was never built
    _cpu = None  # type: ignore[assignment]


class Change(Enum):
    """What has happened to rows since the last look: engines hold for the first alone."""

    NONE = "none"
    MOVED = "moved"  # the same values at another address
    WRITTEN = "written"  # other values, perhaps


class Watch:
    """rows [N, d] at one moment. What is noticed afterwards:

    another address            torch moved them
    an operation of torch      by the version counter that all views of a tensor share
    a write behind its back    (numpy, `.data`) by a sum over 16 KiB spread over the rows: all there is, or most changes
    a change of a mapped file  by its size and time of modification
    """

    def __init__(self, rows: Tensor) -> None:
        """Raises DataError where rows are mapped from a file that is shorter by now."""
        self._rows, self._storage = rows, rows.untyped_storage()
        self._size = rows.numel() * rows.element_size()
        self._end = rows.storage_offset() * rows.element_size() + self._size
        self._counted = not rows.is_inference()
        self._summed = _cpu is not None and rows.device.type == "cpu"
        self._take()

    def _take(self) -> None:
        #: that the rows are mapped from; None where they are not
        self.file = mapped_file.find(self._rows)
        self._address = self._rows.data_ptr()
        self._version = self._rows._version if self._counted else 0
        self._sum = self._total()

    def _total(self) -> int:
        return (
            _cpu.checksum(self._address, self._size, "" if self.file is None else self.file.path) if self._summed else 0
        )

    def look(self) -> Change:
        """What has happened since the last look.

        Raises ValueError where memory was given back, or values have changed and torch does not know: of such changes
        not all can be noticed, so none is followed. DataError where a mapped file has changed.
        """
        if self._storage.nbytes() < self._end:
            raise _refused(f"their storage cut to {self._storage.nbytes()} bytes")
        if self._counted and self._rows._version != self._version:
            self._take()
            return Change.WRITTEN
        if self._rows.data_ptr() != self._address:
            before = self._sum
            self._take()
            if self._sum != before:
                raise _refused("other values")
            return Change.MOVED
        if self.file is not None:
            self.file.check()
        if self._total() != self._sum:
            raise _refused("other values, written where PyTorch does not see it (NumPy, tensor.data)")
        return Change.NONE


def _refused(found: str) -> ValueError:
    return ValueError(
        f"data: expected as they were when the denoiser was made, found {found}; allowed changes by operations of "
        f"PyTorch, or a new denoiser after the change, or one over data.clone()"
    )
