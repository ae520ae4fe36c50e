"""The downsampled ImageNet: batches of 16x16, 32x32 or 64x64 images, as .npz or pickled.

Format: data uint8 [n, 3 S^2] (red, green and blue planes), labels 1..1000 in the order of the development kit's
map_clsloc.txt (kit fox first), which is not that of sorted WordNet ids; files train_data_batch_1 .. 10 and val_data,
whose rows are shuffled. Source: P. Chrabaszcz, I. Loshchilov, F. Hutter, 1707.08819, and its public scripts.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geodiff.base.array_like import view_array
from geodiff.base.errors import DataError
from geodiff.data.archives import check_directory
from geodiff.data.dataset import Contents, as_labels
from geodiff.data.decoding import MOST_OF_BATCH, check_file, check_size, decoding, stamp
from geodiff.data.pickles import read_batch
from geodiff.data.stream import Stream

CLASSES = 1000
_NAME = re.compile(r"(?:train_data_batch_(\d+)|val_data)(?:\.npz)?")
_MAP = "map_clsloc.txt"
_NOTE = (
    "classes in the order of map_clsloc.txt, not of sorted WordNet ids: lay that file beside the batches to have those"
)


def matches(path: Path) -> bool:
    """Whether a file is to be read as such a batch: by its name."""
    return _NAME.fullmatch(path.name) is not None


def find_batches(folder: Path, split: str) -> list[Path] | None:
    """The batch files of one split in numerical order; None if the folder holds none. FileNotFoundError for a gap."""
    named = [(path, match) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    if not named:
        return None
    if split == "train":
        numbered = sorted((int(match[1]), path) for path, match in named if match[1])
        numbers = [number for number, _ in numbered]
        if numbers != list(range(1, len(numbers) + 1)):
            raise FileNotFoundError(
                f"{folder}: batches missing: found train_data_batch numbers {numbers}, not 1, 2, ..."
            )
        found = [path for _, path in numbered]
    else:
        found = [path for path, match in named if not match[1]]
    if not found:
        raise FileNotFoundError(f"{folder}: no batch of the downsampled ImageNet for split={split!r}")
    return found


def open_stream(paths: list[Path]) -> Stream:
    """Images [N, 3, S, S] uint8 and labels 0..999, a batch at a time: an .npz is unpacked in full anyway."""
    order, classes = _class_order(paths[0].with_name(_MAP))
    note = "" if classes else _NOTE

    def read(first: int) -> Iterator[Contents]:
        start, shape = 0, torch.Size()
        for path in paths:
            data, labels = _read(path)
            if data.shape[1:] != (shape := shape or data.shape[1:]):
                raise DataError(
                    path,
                    f"size: found {data.shape[2]}x{data.shape[3]}, expected {shape[1]}x{shape[2]} as in "
                    f"{paths[0].name}; keep batches of one size in a folder",
                )
            if first < start + len(data):
                part = slice(max(0, first - start), None)
                mapped = labels if order is None else order[labels]
                yield Contents(data[part], mapped[part], classes, is_chw=True, note=note)
            start += len(data)

    def identity() -> str:
        return " ".join(map(stamp, paths))

    for path in paths:
        check_file(path)
    return Stream(paths[0].name if len(paths) == 1 else paths[0].parent.name, identity, read)


def _read(path: Path) -> tuple[Tensor, Tensor]:
    kind = "a batch of the downsampled ImageNet"
    if path.suffix == ".npz":
        with path.open("rb") as file, decoding(path, kind):
            archive = np.load(file, allow_pickle=False)
            check_directory(archive.zip, path)
            for member in archive.zip.infolist():
                check_size(member.file_size, MOST_OF_BATCH, f"{path}: {member.filename}")
            batch = {name: archive[name] for name in archive.files}
    else:
        batch = read_batch(path, kind)
    if "data" not in batch or "labels" not in batch:
        raise DataError(path, f"keys: found {sorted(batch)}; expected data and labels")
    pixels = batch["data"]
    side = _side(pixels, path)
    labels = as_labels(batch["labels"], len(pixels), path)
    bad = labels[(labels < 1) | (labels > CLASSES)]
    if len(bad):
        raise DataError(
            path, f"labels: expected 1..{CLASSES}, found {int(bad[0])}; a file that was written anew is an .npy"
        )
    return view_array(np.ascontiguousarray(pixels)).view(-1, 3, side, side), labels - 1


def _side(pixels: np.ndarray[Any, Any], path: Path) -> int:
    width = pixels.shape[1] if pixels.ndim == 2 else 0
    side = math.isqrt(width // 3)
    if pixels.dtype != np.uint8 or len(pixels) == 0 or side == 0 or 3 * side * side != width:
        raise DataError(path, f"data: expected uint8 [n, 3 S S] with n >= 1, found {pixels.dtype} {list(pixels.shape)}")
    return side


def _class_order(path: Path) -> tuple[Tensor | None, tuple[str, ...]]:
    """The place of each class among sorted WordNet ids, and those ids; from a file of lines "n02119789 1 kit_fox"."""
    if not path.is_file():
        return None, ()
    with decoding(path, "a list of classes"):
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        numbered = {int(row[1]): row[0] for row in rows}
    if sorted(numbered) != list(range(1, CLASSES + 1)) or len(set(numbered.values())) != CLASSES:
        raise DataError(
            path, f"expected lines 'WordNet-id number name' for 1..{CLASSES}, found {len(numbered)} numbers"
        )
    names = sorted(numbered.values())
    place = {name: index for index, name in enumerate(names)}
    return torch.tensor([place[numbered[number]] for number in range(1, CLASSES + 1)], device="cpu"), tuple(names)
