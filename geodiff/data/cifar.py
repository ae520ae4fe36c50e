"""The python batches of CIFAR-10 and CIFAR-100, read without running what a pickle may contain.

Format: a pickled dict with `data` [n, 3072] uint8 (red, green and blue planes of 32x32) and `labels` or `fine_labels`.
Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, and its download page.
"""

import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geodiff.base.errors import DataError
from geodiff.data.dataset import Contents, as_labels
from geodiff.data.decoding import decoding

_SHAPE = (3, 32, 32)
_BATCH_NAME = re.compile(r"data_batch_(\d+)")


def matches(path: Path, head: bytes) -> bool:
    """Whether a file is to be read as a batch: by the usual name, or by the first byte of a pickle."""
    return _BATCH_NAME.fullmatch(path.name) is not None or path.name == "test_batch" or head[:1] == b"\x80"


def find_batches(folder: Path, split: str) -> list[Path] | None:
    """The batch files of one split, in order, in a CIFAR-10 or CIFAR-100 folder; None if it is neither."""
    numbered = sorted((int(match[1]), path) for path in folder.iterdir() if (match := _BATCH_NAME.fullmatch(path.name)))
    if numbered or (folder / "test_batch").is_file():
        found = {"train": [path for _, path in numbered], "test": [folder / "test_batch"]}[split]
        numbers = [number for number, _ in numbered]
        if split == "train" and numbers != list(range(1, len(numbers) + 1)):
            raise FileNotFoundError(f"{folder}: batches missing: found data_batch numbers {numbers}, not 1, 2, ...")
    elif (folder / "meta").is_file() and ((folder / "train").is_file() or (folder / "test").is_file()):
        found = [folder / split]
    else:
        return None
    if not found or not found[0].is_file():
        raise FileNotFoundError(f"{folder}: no CIFAR batch for split={split!r}")
    return found


def read_batches(paths: list[Path], limit: int | None) -> Contents:
    """Images [N, 3, 32, 32] uint8 and labels [N] int64 of the batches in order, as many batches as `limit` needs."""
    images: list[np.ndarray[Any, Any]] = []
    labels: list[torch.Tensor] = []
    for path in paths:
        if limit is not None and sum(map(len, images)) >= limit:
            break
        pixels, values = _read(path)
        images.append(pixels)
        labels.append(as_labels(values, len(pixels), path))
    return Contents(torch.from_numpy(np.concatenate(images)).view(-1, *_SHAPE), torch.cat(labels), is_chw=True)


def _read(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    with decoding(path, "a CIFAR python batch"):
        with path.open("rb") as file:
            stored = _BatchUnpickler(file, encoding="bytes").load()
        if not isinstance(stored, dict):
            raise DataError(path, f"expected a CIFAR batch (a dict), found {type(stored).__name__}")
        # Keys are bytes in the published files (Python 2 wrote them) and str in files written again since.
        batch = {_text(key): value for key, value in stored.items()}
        label_key = "fine_labels" if "fine_labels" in batch else "labels"
        missing = [key for key in ("data", label_key) if key not in batch]
        if missing:
            raise DataError(path, f"keys: found {sorted(batch)}; expected data, and labels or fine_labels")
        pixels, labels = (np.asarray(_decoded(batch[key])) for key in ("data", label_key))
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (math.prod(_SHAPE),) or len(pixels) == 0:
        found = f"{pixels.dtype} {pixels.shape}"
        raise DataError(path, f"data: expected uint8 [n, {math.prod(_SHAPE)}] with n >= 1, found {found}")
    return pixels, labels


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

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        name = f"{module_name}.{global_name}"
        if name not in self._ALLOWED:
            raise pickle.UnpicklingError(f"the file asks for {name}, which a CIFAR batch does not need; not loaded")
        return self._ALLOWED[name]
