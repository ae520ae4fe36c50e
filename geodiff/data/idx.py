"""The IDX files of MNIST and its kin, plain (memory-mapped) or gzipped.

Format: bytes 0, 0, element type, number of axes; each axis as a big-endian 32-bit integer; then the elements.
Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", section "File formats".
"""

import gzip
import math
import re
import struct
from pathlib import Path
from typing import IO, Any

import numpy as np

from geodiff.base.array_like import view_array
from geodiff.base.errors import DataError
from geodiff.data.dataset import Contents, as_labels, check_points
from geodiff.data.decoding import check_file, decoding
from geodiff.data.memory_map import map_file

_PREFIX = {"train": "train", "test": "t10k"}
_UBYTE = 0x08
_OTHER_TYPES = {0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
_GZIP_MAGIC = b"\x1f\x8b"


def matches(path: Path, head: bytes) -> bool:
    """Whether a file is to be read as IDX: by the usual name, or by its first bytes."""
    return re.search(r"[.-]idx\d(-ubyte)?(\.gz)?$", path.name) is not None or head[:2] in (b"\0\0", _GZIP_MAGIC)


def find_images(folder: Path, split: str) -> Path | None:
    """The image file of one split in a folder that holds MNIST under its usual names; None if it holds no such file."""
    found = {name: sorted(folder.glob(f"{prefix}-images[.-]idx3-ubyte*")) for name, prefix in _PREFIX.items()}
    if not any(found.values()):
        return None
    if not found[split]:
        raise FileNotFoundError(f"{folder}: no file {_PREFIX[split]}-images-idx3-ubyte(.gz) for split={split!r}")
    return found[split][0]  # the plain file sorts before its .gz, and can be mapped


def read_idx(path: Path) -> Contents:
    """Images [N, H, W] uint8 and, where '...labels-idx1...' lies beside '...images-idx3...', their labels [N] int64."""
    stored = _read(path)
    if stored.ndim < 2:
        raise DataError(path, f"data: found {stored.ndim} axis, as in a label file; expected images [N, H, W]")
    data = check_points(view_array(stored), path)
    beside = _labels_beside(path)
    return Contents(data, None if beside is None else as_labels(_read(beside), data.shape[0], beside))


def _read(path: Path) -> np.ndarray[Any, Any]:
    """The elements of one file, uint8."""
    with check_file(path).open("rb") as file:
        if file.read(2) == _GZIP_MAGIC:
            with decoding(path, "a gzipped IDX file"), gzip.open(path) as unzipped:
                shape = _shape(unzipped, path)
                size = math.prod(shape)
                body = unzipped.read(size + 1)  # one more than is right: shows surplus bytes without unpacking them all
                _check_size(len(body), size, path)
                return np.frombuffer(body, np.uint8).reshape(shape)
        file.seek(0)
        shape = _shape(file, path)
        offset = file.tell()
    size = math.prod(shape)
    _check_size(path.stat().st_size - offset, size, path)
    # An empty map is refused by the system; check_points and as_labels then say what is wrong with an empty array.
    return map_file(lambda mode: np.memmap(path, np.uint8, mode, offset, shape)) if size else np.empty(shape, np.uint8)


def _shape(file: IO[bytes] | gzip.GzipFile, path: Path) -> tuple[int, ...]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in (_UBYTE, *_OTHER_TYPES) or magic[3] == 0:
        raise DataError(
            path, f"damaged or not an IDX file: opens with {magic.hex(' ') or 'nothing'}, expected 00 00 08 03"
        )
    if magic[2] != _UBYTE:
        raise DataError(path, f"dtype: found {_OTHER_TYPES[magic[2]]}; allowed in IDX uint8; save other data as .npy")
    axes = file.read(4 * magic[3])
    if len(axes) < 4 * magic[3]:
        raise DataError(path, f"truncated: the header names {magic[3]} axes and ends after {len(axes)} bytes of them")
    return struct.unpack(f">{magic[3]}I", axes)


def _check_size(found: int, expected: int, path: Path) -> None:
    if found < expected:
        raise DataError(path, f"truncated: the header promises {expected} elements, found {found}")
    if found > expected:
        raise DataError(path, f"damaged: the header promises {expected} elements, found more")


def _labels_beside(path: Path) -> Path | None:
    name = path.name.replace("images", "labels").replace("idx3", "idx1")
    plain = name.removesuffix(".gz")
    if name == path.name:
        return None
    return next((beside for beside in map(path.with_name, (name, plain, f"{plain}.gz")) if beside.exists()), None)
