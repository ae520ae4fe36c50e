"""The file behind mapped memory, and whether it is still what it was: a shorter file ends a process that reads its map.

Linux alone tells where memory comes from; elsewhere nothing is found.
"""

import os
import stat
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor

from geodiff.base.errors import DataError

try:
    from geodiff import _cpu
except ImportError:  # a source tree that was never built
    _cpu = None  # type: ignore[assignment]

_PAGE = 4096
_PRESENT, _OF_A_FILE = 1 << 63, 1 << 61  # bits of an entry of /proc/self/pagemap


class _Map(NamedTuple):
    begin: int  # addresses
    end: int
    offset: int  # of `begin` in the file
    inode: int
    path: str


class MappedFile:
    """A file as it was when it was found, kept open: another one under the same name is not mistaken for it.

    path, size, modified  name, bytes, and time of modification in nanoseconds
    offset                the place in the file of the values that it was found for
    """

    def __init__(self, path: str, descriptor: int, offset: int) -> None:
        self.path, self.offset, self._descriptor = path, offset, descriptor
        weakref.finalize(self, os.close, descriptor)
        self._state = self.size, self.modified = self._now()

    def _now(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns

    def check(self) -> None:
        """Raises DataError if the file has been written to or cut since it was found."""
        now = self._now()
        if now != self._state:
            how = f"{self._state[0]} bytes then, {now[0]} now" if now[0] != self._state[0] else "written to since"
            raise DataError(
                self.path,
                f"data: expected the file as it was when it was mapped, found it changed ({how}); "
                f"allowed a file that nobody writes to while it is in use, or a copy in memory (data.clone())",
            )

    def holds(self, values: Tensor) -> bool:
        """Whether memory has all the values as the file has them: a map may be copied page by page, on writing."""
        start = values.data_ptr()
        return self._now() == self._state and _is_unwritten(start, start + _span(values) - 1)


def find(values: Tensor) -> MappedFile | None:
    """The file that the memory of `values` is a map of; None where it is of none, or that cannot be told.

    Raises DataError where the file ends before the values do.
    """
    if values.device.type != "cpu" or values.numel() == 0:
        return None
    start = values.data_ptr()
    last = start + _span(values) - 1
    if not (_may_be_mapped(start) or _may_be_mapped(last)):
        return None
    found = _map_at(last)
    if found is None:
        return None
    try:
        descriptor = os.open(found.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return None
    now = os.fstat(descriptor)
    if now.st_ino != found.inode or not stat.S_ISREG(now.st_mode):  # replaced by another: nobody can reach ours
        os.close(descriptor)
        return None
    file = MappedFile(found.path, descriptor, found.offset + start - found.begin)
    needed = found.offset + last - found.begin + 1
    if now.st_size < needed:
        raise DataError(
            found.path, f"data: expected {needed} bytes or more, found {now.st_size}: cut after it was mapped"
        )
    return file


@contextmanager
def reading(values: Tensor) -> Iterator[None]:
    """Within the block, reads of `values` that fail since their file was cut end it with DataError, not the process."""
    file = find(values)
    if file is None or _cpu is None:
        yield
        return
    watched = _cpu.Mapped(values.data_ptr(), _span(values), file.path)
    yield
    watched.check()


def _span(values: Tensor) -> int:
    """Bytes from the first of the values to the last, whatever their strides."""
    steps = sum((size - 1) * stride for size, stride in zip(values.shape, values.stride(), strict=True))
    return (steps + 1) * values.element_size()


def _may_be_mapped(address: int) -> bool:
    """Whether the page may be one of a file: quick, where the list of all maps takes a millisecond to read."""
    try:
        descriptor = os.open("/proc/self/pagemap", os.O_RDONLY)
    except OSError:
        return True
    try:
        entry = int.from_bytes(os.pread(descriptor, 8, address // _PAGE * 8), "little")
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return not entry & _PRESENT or bool(entry & _OF_A_FILE)


def _is_unwritten(start: int, last: int) -> bool:
    """Whether one map has both addresses, and none of its pages is a copy of the file's."""
    inside, copies = False, []
    try:
        with open("/proc/self/smaps", "rb") as maps:
            for line in maps:
                name, *values = line.split(maxsplit=2)
                if not name.endswith(b":"):
                    if inside:
                        break
                    begin, end = (int(place, 16) for place in name.split(b"-"))
                    inside = begin <= start and last < end
                elif inside and name in (b"Anonymous:", b"Swap:"):
                    copies.append(int(values[0]))
    except OSError:
        return False
    return copies == [0, 0]


def _map_at(address: int) -> _Map | None:
    """The map of a file that has a name, at an address."""
    try:
        with open("/proc/self/maps", "rb") as maps:
            for line in maps:
                span, _, offset, _, inode, *name = line.split(maxsplit=5)
                begin, end = (int(place, 16) for place in span.split(b"-"))
                if begin <= address < end:
                    path = os.fsdecode(name[0].rstrip(b"\n")) if name else ""
                    found = _Map(begin, end, int(offset, 16), int(inode), path)
                    return found if found.inode and path.startswith("/") and not path.endswith(" (deleted)") else None
    except OSError:
        pass
    return None
