"""Parquet files of pictures, as Hugging Face's datasets are kept: NAME-00000-of-00012.parquet.

Format: an image column, struct {bytes, path} of encoded files (older ones hold the bytes alone), and an integer column
of labels; the schema's metadata under "huggingface" say which is which and how classes are called. Source: the public
documentation of the library datasets (Features, Image, ClassLabel). Rows are read a group at a time.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from geodiff.base.errors import DataError
from geodiff.data.dataset import Contents
from geodiff.data.decoding import check_file, decoding, stamp
from geodiff.data.items import IMAGE_KEYS, LABEL_KEYS
from geodiff.data.optional_packages import require
from geodiff.data.pixels import decoded
from geodiff.data.stream import Item, Stream, stacked

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.parquet")
_ROWS = 256


class _Columns(NamedTuple):
    image: str
    label: str | None
    classes: tuple[str, ...]

    @property
    def words(self) -> str:
        """What an error says of them."""
        named = f" of classes {', '.join(self.classes)}" if self.classes else ""
        return f"{self.image}, {self.label or 'no label'}{named}"


def find_shards(folder: Path, split: str) -> list[Path] | None:
    """The files of one split, in order, where a folder (or one inside it) holds any; None if it does not.

    Raises DataError where a shard of a numbered set is missing, FileNotFoundError for a split that is not there.
    """
    found = sorted(folder.glob("*.parquet")) or sorted(folder.glob("*/*.parquet"))
    if not found:
        return None
    names = {"train": ("train",), "test": ("test", "validation", "valid", "val")}[split]
    known = [path for path in found if path.name.split("-")[0] in ("train", "test", "validation", "valid", "val")]
    for name in names:
        chosen = [path for path in known if path.name.split("-")[0] == name]
        if chosen:
            return _whole(chosen)
    if known or split != "train":
        raise FileNotFoundError(f"{folder}: no parquet file for split={split!r}; found {[path.name for path in found]}")
    return _whole(found)


def _whole(paths: list[Path]) -> list[Path]:
    folders = {path.parent for path in paths}
    if len(folders) > 1:
        names = sorted(folder.name for folder in folders)
        raise DataError(paths[0].parent.parent, f"expected one data set, found folders {names}; give one of them")
    for path in paths:
        match = _SHARD.fullmatch(path.name)
        if match is None:
            continue
        for number in range(int(match[3])):
            name = f"{match[1]}-{number:05d}-of-{match[3]}.parquet"
            if not path.with_name(name).is_file():
                raise DataError(path.with_name(name), f"missing: {path.name} beside it says there are {int(match[3])}")
    return paths


def open_stream(paths: list[Path], mode: str | None = None) -> Stream:
    """Images uint8 [N, C, H, W] and labels, file by file in the order of `paths`; labels of -1 throughout are none."""
    parquet = require("pyarrow.parquet", "pyarrow", "a parquet file")
    counts: list[int] = []
    found: list[_Columns] = []
    for path in map(check_file, paths):
        with decoding(path, "a parquet file"), parquet.ParquetFile(path) as file:
            counts.append(file.metadata.num_rows)
            found.append(_columns(file.schema_arrow, path))
        columns = found[0]
        if found[-1] != columns:
            raise DataError(
                path,
                f"columns: found {found[-1].words}, expected {columns.words} as in {paths[0].name}; "
                f"give files of one set",
            )

    def items(first: int) -> Iterator[Item]:
        for path, count in zip(paths, counts, strict=True):
            if first < count:
                yield from _rows(path, columns, first, mode)
            first = max(0, first - count)

    like = Contents(torch.empty(0, device="cpu"), None, columns.classes, is_chw=True)

    def read(first: int) -> Iterator[Contents]:
        for piece in stacked(items(first), like):
            unknown = piece.labels is not None and bool((piece.labels == -1).all())
            yield piece._replace(labels=None) if unknown else piece

    def identity() -> str:
        return " ".join(map(stamp, paths)) + f" {mode}"

    return Stream(paths[0].name if len(paths) == 1 else paths[0].parent.name, identity, read, sum(counts))


def _columns(schema: Any, path: Path) -> _Columns:
    """Which columns are image and label: by the metadata where there are any, by their names otherwise."""
    with decoding(path, "the metadata of a parquet file"):
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    kinds = {name: one.get("_type") for name, one in described.items() if isinstance(one, dict)}
    image = next((name for name in schema.names if kinds.get(name) == "Image"), None)
    image = image or next((name for name in IMAGE_KEYS if name in schema.names), None)
    if image is None:
        raise DataError(path, f"columns: found {schema.names}; expected an image under one of {', '.join(IMAGE_KEYS)}")
    label = next((name for name in LABEL_KEYS if name in schema.names), None)
    label = label or next((name for name in schema.names if kinds.get(name) == "ClassLabel"), None)
    return _Columns(image, label, tuple(described.get(label, {}).get("names") or ()) if label else ())


def _rows(path: Path, columns: _Columns, first: int, mode: str | None) -> Iterator[Item]:
    parquet = require("pyarrow.parquet", "pyarrow", "a parquet file")
    wanted = [columns.image] + ([columns.label] if columns.label else [])
    row = 0
    with decoding(path, "a parquet file"), parquet.ParquetFile(path) as file:
        groups = list(range(file.num_row_groups))
        while groups and row + file.metadata.row_group(groups[0]).num_rows <= first:
            row += file.metadata.row_group(groups.pop(0)).num_rows
        for batch in file.iter_batches(_ROWS, row_groups=groups, columns=wanted):
            for values in batch.to_pylist():
                if row >= first:
                    where = f"{path}: row {row}"
                    point = decoded(_encoded(values[columns.image], where), where, mode)
                    yield Item(point, _label(values.get(columns.label or ""), len(columns.classes), where), where)
                row += 1


def _encoded(value: Any, where: str) -> bytes:
    content = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(content, bytes):
        return content
    if isinstance(value, dict) and value.get("path"):
        raise DataError(
            where,
            f"image: expected its bytes, found only the path {value['path']!r}; write the files into the set with "
            f"datasets' embed_external_files=True, or read the folder of pictures itself",
        )
    raise DataError(where, f"image: expected bytes of an encoded picture, found {type(content).__name__}")


def _label(value: Any, classes: int, where: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(where, f"label: expected an integer, found {type(value).__name__}")
    if classes and not -1 <= value < classes:
        raise DataError(
            where, f"label: found {value}, expected one of the {classes} classes that the file names, or -1 for none"
        )
    return value
