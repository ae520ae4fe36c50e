"""Files before they are opened, and one place where a format's own exceptions become DataError with their name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geodiff.base.errors import DataError

#: Bytes of one point, and of one batch of points: a header that promises more is damaged, or made to fill the memory.
MOST, MOST_OF_BATCH = 2**28, 2**32


def check_file(path: Path) -> Path:
    """Returns path itself; raises DataError unless it is a file that has bytes: to open a pipe would wait forever."""
    if not path.exists():
        raise FileNotFoundError(f"source: no such file: {str(path)!r}")
    if not path.is_file():
        raise DataError(path, "expected a file, found a device, pipe or socket, or a folder; give a file")
    if path.stat().st_size == 0:
        raise DataError(path, "the file is empty (0 bytes); fetch it again")
    return path


def check_size(found: int, most: int, where: object) -> None:
    """Raises DataError for so many bytes of one thing, before they are unpacked."""
    if found > most:
        raise DataError(where, f"found {found} bytes or more, allowed {most}; split what is truly so large")


def stamp(path: Path) -> str:
    """What a file is before it is read: another text means that it was written anew."""
    found = path.stat()
    return f"{path.name}:{found.st_size}:{found.st_mtime_ns}"


@contextmanager
def decoding(path: Path, kind: str) -> Iterator[None]:
    """Turns whatever a decoder raises on bad bytes into DataError(path, reason). Wrap only the decoder's calls in it.

    A file that cannot be opened at all (missing, not permitted) keeps its own exception, which names it already.
    """
    try:
        yield
    except (DataError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        # On damaged bytes numpy, zipfile, zlib, pickle, Pillow and safetensors raise some twenty unrelated types
        # (EOFError, SyntaxError, MemoryError for a length of 2^60, ...): a list of them would always lack one.
        detail = str(error) or "no further detail"
        raise DataError(path, f"damaged, truncated or not {kind} ({type(error).__name__}: {detail})") from error
