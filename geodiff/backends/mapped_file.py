"""The file behind mapped memory, and whether it is still what it was: a shorter file ends a process that reads its map.

Linux alone tells where memory comes from; elsewhere nothing is found.
"""

import os
import stat
import weakref

from torch import Tensor

from geodiff.base.errors import DataError

_PAGE = 4096
_PRESENT, _OF_A_FILE = 1 << 63, 1 << 61  # bits of an entry of /proc/self/pagemap


class MappedFile:
    """A file as it was when it was found, kept open: another one under the same name is not mistaken for it."""

    def __init__(self, path: str) -> None:
        """Raises OSError where it cannot be opened."""
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        weakref.finalize(self, os.close, self._descriptor)
        self.is_file = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        self._state = self._now()

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


def find(values: Tensor) -> MappedFile | None:
    """The file that the memory of `values` is a map of; None where it is of none, or that cannot be told."""
    if values.device.type != "cpu" or values.numel() == 0:
        return None
    start = values.data_ptr()
    last = start + values.numel() * values.element_size() - 1
    if not (_may_be_mapped(start) or _may_be_mapped(last)):
        return None
    path = _mapped_at(start)
    if path is None:
        return None
    try:
        found = MappedFile(path)
    except OSError:
        return None
    return found if found.is_file else None


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


def _mapped_at(address: int) -> str | None:
    try:
        with open("/proc/self/maps", "rb") as maps:
            for line in maps:
                span, _, _, _, inode, *name = line.split(maxsplit=5)
                begin, end = (int(place, 16) for place in span.split(b"-"))
                if begin <= address < end:
                    path = os.fsdecode(name[0].rstrip(b"\n")) if name and int(inode) else ""
                    return None if not path.startswith("/") or path.endswith(" (deleted)") else path
    except OSError:
        pass
    return None
