"""Files of torch.save: a tensor, or a dict with tensors, read without running what a pickle may contain."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geodiff.base.errors import DataError
from geodiff.data.archives import check_directory
from geodiff.data.arrays import choose
from geodiff.data.dataset import Contents, as_labels, check_points
from geodiff.data.decoding import decoding

_CHUNK = 2**20
_ALLOWED = "allowed a tensor, or a dict with tensors: torch.save({'data': x, 'labels': y}, path)"


def read_saved(path: Path, key: str | None = None) -> Contents:
    """A .pt or .pth file, into memory: the tensor that it holds, or points and labels under the keys of a .npz."""
    stored = _loaded(path)
    if isinstance(stored, Tensor):
        if key is not None:
            raise ValueError(f"key: found {key!r}, but the file {path} holds a single tensor; allowed None")
        return Contents(_points(stored, path))
    if not isinstance(stored, Mapping):
        raise DataError(path, f"expected tensors, found {type(stored).__name__}; {_ALLOWED}")
    data_key, label_key, others = choose([name for name in stored if isinstance(name, str)], key, path)
    data = _points(_tensor(stored[data_key], data_key, path), path)
    labels = None if label_key is None else as_labels(_tensor(stored[label_key], label_key, path), len(data), path)
    return Contents(data, labels, left_out=others)


def _loaded(path: Path) -> Any:
    with decoding(path, "a file of torch.save"):
        if zipfile.is_zipfile(path):
            _check_sums(path)
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            # Its own text is a page of advice, part of which is to run whatever the file asks for.
            raise DataError(
                path, f"damaged, or holds more than numbers and tensors, so it is not read; {_ALLOWED}"
            ) from error


def _check_sums(path: Path) -> None:
    """Raises for members that are not what was written: torch.load compares no checksums."""
    with zipfile.ZipFile(path) as archive:
        check_directory(archive, path)
        for info in archive.infolist():
            if info.CRC == 0:  # torch.serialization.set_crc32_options(False) leaves them out
                continue
            with archive.open(info) as member:
                while member.read(_CHUNK):
                    pass


def _tensor(value: Any, key: str, path: Path) -> Tensor:
    if not isinstance(value, Tensor):
        raise DataError(path, f"{key!r}: expected a tensor, found {type(value).__name__}; {_ALLOWED}")
    return value


def _points(data: Tensor, path: Path) -> Tensor:
    if data.layout != torch.strided or data.is_meta:
        found = "one on the device meta, without values" if data.is_meta else f"layout {data.layout}"
        raise DataError(path, f"data: expected a dense tensor, found {found}; allowed x.to_dense()")
    return check_points(data.detach(), path)
