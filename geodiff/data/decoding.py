"""One place where a format's own exceptions become DataError with the file's name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geodiff.base.errors import DataError


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
