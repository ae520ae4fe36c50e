"""Array files: .npy (memory-mapped), .npz and .safetensors."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from torch import Tensor

from geodiff.base.array_like import view_array
from geodiff.base.errors import DataError
from geodiff.data.archives import check_directory, check_unread
from geodiff.data.dataset import Contents, as_labels, check_points, dtype_error
from geodiff.data.decoding import check_file, decoding
from geodiff.data.memory_map import map_file

DATA_KEYS = ("data", "images", "x", "arr_0")  # arr_0: what numpy.savez calls an array passed without a name
LABEL_KEYS = ("labels", "y")
_SHOWN = 20  # names in an error: the weights of a network have hundreds


def read_npy(path: Path) -> Contents:
    """A .npy file as a tensor over its memory map, so that pages are read when touched and nothing is read ahead.

    Labels come from NAME_labels.npy beside NAME.npy where that file exists.
    """
    data = map_array(path)
    beside = path.with_name(f"{path.stem}_labels.npy")
    return Contents(data, as_label_array(beside, len(data)) if beside.exists() else None)


def map_array(path: Path) -> Tensor:
    """The points of a .npy file, mapped."""
    return _tensor(_map(path), path)


def as_label_array(path: Path, count: int) -> Tensor:
    """The labels of `count` points, int64, from a .npy file."""
    return as_labels(_map(path), count, path)


def read_npz(path: Path, key: str | None = None) -> Contents:
    """A .npz archive: points under `key`, or the first of DATA_KEYS it has, labels under the first of LABEL_KEYS."""
    # Opened here, because numpy leaves a file open that it opened itself and then found damaged.
    with path.open("rb") as file, decoding(path, "a .npz archive"):
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(path, "expected a .npz archive, found a single .npy array; rename it to .npy")
        assert archive.zip is not None, "just opened"
        check_directory(archive.zip, path)
        data_key, label_key, others = choose(archive.files, key, path)
        check_unread(
            archive.zip, [name for name in archive.zip.namelist() if name.removesuffix(".npy") in others], path
        )
        stored = archive[data_key]
        values = archive[label_key] if label_key else None
    data = _tensor(stored, path)
    return Contents(data, None if values is None else as_labels(values, data.shape[0], path), left_out=others)


def read_safetensors(path: Path, key: str | None = None) -> Contents:
    """A .safetensors file, with the same keys; the library maps it (copy-on-write), so this too reads no data ahead."""
    with decoding(path, "a .safetensors file"), safe_open(path, framework="pt") as archive:
        data_key, label_key, others = choose(archive.keys(), key, path)
        data = archive.get_tensor(data_key)
        values = archive.get_tensor(label_key) if label_key else None
    check_points(data, path)
    return Contents(data, None if values is None else as_labels(values, data.shape[0], path), left_out=others)


def choose(found: Iterable[str], key: str | None, path: Path) -> tuple[str, str | None, tuple[str, ...]]:
    """The names of the points and of the labels, and all others. Raises DataError where no name is that of points."""
    names = list(found)
    data_key = key if key is not None else next((name for name in DATA_KEYS if name in names), None)
    if data_key is None or data_key not in names:
        expected = (
            f"one of {', '.join(DATA_KEYS)}, or a name given as key=" if key is None else f"{key!r}, the key given"
        )
        raise DataError(path, f"keys: found {_listed(names)}; expected {expected}")
    label_key = next((name for name in LABEL_KEYS if name in names and name != data_key), None)
    return data_key, label_key, tuple(name for name in names if name not in (data_key, label_key))


def _map(path: Path) -> np.ndarray[Any, Any]:
    check_file(path)
    with decoding(path, "a .npy array"):
        return map_file(lambda mode: np.lib.format.open_memmap(path, mode=mode))


def _tensor(array: np.ndarray[Any, Any], path: Path) -> Tensor:
    if array.dtype.newbyteorder("=").name not in ("uint8", "float16", "float32"):
        raise dtype_error(str(array.dtype), path)
    if not array.dtype.isnative:
        raise DataError(
            path, "byte order: found foreign, allowed native; convert with array.astype(array.dtype.newbyteorder('='))"
        )
    return check_points(view_array(array), path)


def _listed(names: list[str]) -> str:
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) or "none") + more
