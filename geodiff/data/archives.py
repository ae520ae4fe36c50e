"""Zips as wholes: that the directory at the end, which readers go by, lists all that it promises, and lists it once."""

import zipfile
from collections.abc import Iterable
from pathlib import Path

from geodiff.base.errors import DataError
from geodiff.data.decoding import decoding

_TAIL = 2**16 + 22  # bytes that the last record, with a comment, can take
_LAST, _LAST_64 = b"PK\x05\x06", b"PK\x06\x06"


def check_directory(archive: zipfile.ZipFile, path: Path) -> None:
    """Raises DataError where the directory lists fewer members than it promises, one twice, or one without a name.

    A damaged length in the directory makes a reader step over members, which would then be missing without a word.
    """
    names = [info.filename for info in archive.infolist()]
    promised, counted = _promised(path), len(names)
    if counted not in (promised, promised + 2**16 * (counted // 2**16)):  # some writers count modulo 2^16
        raise DataError(path, f"damaged: its directory promises {promised} members and lists {counted}; fetch it again")
    if "" in names:
        raise DataError(path, "damaged: a member has no name; fetch it again")
    if counted != len(set(names)):
        twice = next(name for index, name in enumerate(names) if name in set(names[:index]))
        raise DataError(path, f"member {twice!r}: found twice; make the archive anew, each name once")


def check_unread(archive: zipfile.ZipFile, names: Iterable[str], path: Path) -> None:
    """Raises DataError where one of these members, which nobody reads, is called otherwise where it lies."""
    for name in names:
        with decoding(path, f"a .zip archive, at {name!r}"), archive.open(name):
            pass


def _promised(path: Path) -> int:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        tail = file.read()
    at = tail.rfind(_LAST)
    found = int.from_bytes(tail[at + 10 : at + 12], "little")
    large = tail.rfind(_LAST_64, 0, at)
    return int.from_bytes(tail[large + 32 : large + 40], "little") if found == 2**16 - 1 and large >= 0 else found
