"""Arrays in shards: a folder of data-00000-of-00012.npy, ... with labels-00000-of-00012.npy beside them, or none.

One tensor cannot lie in many files: `load` reads them into memory, and `geodiff convert` makes one mapped file of them.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from geodiff.base.errors import DataError
from geodiff.data.arrays import as_label_array, map_array
from geodiff.data.dataset import Contents
from geodiff.data.stream import Stream

_NAME = re.compile(r"data-(\d{5})-of-(\d{5})\.npy")


def find_shards(folder: Path) -> list[Path]:
    """The shards of a folder in their order, [] where there is none. Raises DataError where some are missing."""
    found = {int(match[1]): (path, int(match[2])) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))}
    if not found:
        return []
    counts = {count for _, count in found.values()}
    if len(counts) > 1:
        raise DataError(
            folder, f"shards: found sets of {' and '.join(map(str, sorted(counts)))} files; allowed one set"
        )
    (count,) = counts
    missing = [f"data-{k:05}-of-{count:05}.npy" for k in range(count) if k not in found]
    if missing:
        raise DataError(folder, f"shards: {len(missing)} of {count} missing, such as {missing[0]}")
    return [found[k][0] for k in range(count)]


def open_stream(shards: list[Path]) -> Stream:
    """The points of all shards in order. Raises DataError for shards that do not fit each other."""
    parts = [map_array(path) for path in shards]
    labels = [path.with_name(f"labels{path.name.removeprefix('data')}") for path in shards]
    labelled = [path.exists() for path in labels]
    if any(labelled) and not all(labelled):
        raise DataError(labels[labelled.index(False)], "missing, where other shards have labels")
    for part, path in zip(parts, shards, strict=True):
        if (part.dtype, part.shape[1:]) != (parts[0].dtype, parts[0].shape[1:]):
            found, expected = (f"{one.dtype} {list(one.shape[1:])}" for one in (part, parts[0]))
            raise DataError(path, f"points: found {found}, expected {expected} as in {shards[0].name}")

    def read(first: int) -> Iterator[Contents]:
        for part, path in zip(parts, labels, strict=True):
            if first < len(part):
                of_part = as_label_array(path, len(part)) if all(labelled) else None
                yield from Stream.of(Contents(part, of_part), path.name, str).read(first)
            first = max(0, first - len(part))

    def identity() -> str:
        stats = [path.stat() for path in shards]
        return " ".join(f"{path.name} {s.st_size} {s.st_mtime_ns}" for path, s in zip(shards, stats, strict=True))

    return Stream(shards[0].parent.name, identity, read, sum(map(len, parts)))
