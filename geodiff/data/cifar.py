"""The python batches of CIFAR-10 and CIFAR-100, read without running what a pickle may contain.

Format: a pickled dict with `data` [n, 3072] uint8 (red, green and blue planes of 32x32) and `labels` or `fine_labels`.
Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, and its download page.
"""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geodiff.base.errors import DataError
from geodiff.data.dataset import Contents, as_labels
from geodiff.data.pickles import read_batch

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
    if not found or not found[0].exists():
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
    batch = read_batch(path, "a CIFAR batch")
    label_key = "fine_labels" if "fine_labels" in batch else "labels"
    if "data" not in batch or label_key not in batch:
        raise DataError(path, f"keys: found {sorted(batch)}; expected data, and labels or fine_labels")
    pixels, labels = batch["data"], batch[label_key]
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (math.prod(_SHAPE),) or len(pixels) == 0:
        found = f"{pixels.dtype} {pixels.shape}"
        raise DataError(path, f"data: expected uint8 [n, {math.prod(_SHAPE)}] with n >= 1, found {found}")
    return pixels, labels
