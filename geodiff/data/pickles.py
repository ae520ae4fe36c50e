"""Pickled batches of images, as CIFAR and the small ImageNet come, read without running what a pickle may contain.

Format: a pickled dict of numpy arrays, lists of integers and text.
"""

import pickle
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from geodiff.base.errors import DataError
from geodiff.data.decoding import check_file, decoding


def read_batch(path: Path, kind: str) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a batch by name, lists as arrays; other values, such as text, are left out.

    kind: what an error calls such a file. Raises DataError for a file that is damaged or asks for code to run.
    """
    with decoding(path, kind):
        with check_file(path).open("rb") as file:
            stored = _BatchUnpickler(file, kind).load()
        if not isinstance(stored, dict):
            raise DataError(path, f"expected {kind} (a dict), found {type(stored).__name__}")
        # Keys are bytes in the published files (Python 2 wrote them) and str in files written again since.
        return {
            _text(key): np.asarray(_decoded(value))
            for key, value in stored.items()
            if isinstance(value, _PickledArray | list)
        }


class _PickledDtype:
    """Stands in for numpy.dtype: keeps the type code, such as "u1", and the byte order."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = _text(code)
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = _text(state[1])
        self.order = "=" if order == "|" else order


class _PickledArray:
    """Stands in for numpy.ndarray: keeps (version, shape, dtype, is_fortran, raw bytes).

    numpy's own classes are not handed to the pickle, because with crafted or damaged state they can be made to read
    memory that is not theirs; this one only ever passes bytes to numpy.frombuffer, which checks their length.
    """

    state: tuple[Any, ...]

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


def _text(value: Any) -> str:
    """A short string of the pickle, which is bytes where Python 2 wrote it."""
    if not isinstance(value, str | bytes):
        raise pickle.UnpicklingError(f"expected text, found {type(value).__name__}")
    return value.decode() if isinstance(value, bytes) else value


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> _PickledArray:
    """Stands in for numpy's _frombuffer, which pickle protocol 5 names."""
    array = _PickledArray()
    array.state = (1, shape, dtype, order == "F", raw)
    return array


def _decoded(value: Any) -> Any:
    """A list of labels as it is; a pickled array as a numpy array over its bytes."""
    if not isinstance(value, _PickledArray):
        return value
    _version, shape, dtype, is_fortran, raw = value.state
    if not re.fullmatch("[uif][1248]", dtype.code):
        raise pickle.UnpicklingError(f"array of dtype {dtype.code} is not allowed in a batch")
    return np.frombuffer(raw, np.dtype(dtype.order + dtype.code)).reshape(shape, order="F" if is_fortran else "C")


def _encode(text: str, encoding: str) -> bytes:
    """Stands in for codecs.encode: how Python 3 writes bytes in pickle protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r} is not allowed in a batch")
    return text.encode("latin1")


class _BatchUnpickler(pickle._Unpickler):
    """Knows the five names that a pickled numpy array needs (numpy 1 and 2 spell two differently), nothing else.

    Built on the pickle module's Python twin, because the C one, on one damaged byte, allocates tens of GB for its memo.
    For the same reason a bytearray is read as bytes: a damaged length is then noticed before the memory is zeroed.
    """

    dispatch = pickle._Unpickler.dispatch | {pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]]}

    _ALLOWED = {  # noqa: RUF012 (never changed)
        "numpy.ndarray": _PickledArray,
        "numpy.dtype": _PickledDtype,
        "_codecs.encode": _encode,
        **{f"numpy.{core}.multiarray._reconstruct": _PickledArray for core in ("core", "_core")},
        **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
    }

    def __init__(self, file: BinaryIO, kind: str) -> None:
        super().__init__(file, encoding="bytes")
        self._kind = kind

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        name = f"{module_name}.{global_name}"
        if name not in self._ALLOWED:
            raise pickle.UnpicklingError(f"the file asks for {name}, which {self._kind} does not need; not loaded")
        return self._ALLOWED[name]
