"""WebDataset: shards name-{000000..000146}.tar, a sample being a run of consecutive members with one key.

Format: key = the path up to the first "." after the last "/", field = the rest in lower case; fields jpg, jpeg, png,
webp (a picture), npy (an array) and cls (an integer in ASCII), .gz unpacked first. Nothing else is looked at, no pickle
least of all. Source: the public documentation of the library webdataset.
"""

import gzip
import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from torch import Tensor

from geodiff.base.errors import DataError
from geodiff.data.dataset import Contents
from geodiff.data.decoding import MOST, check_file, check_size, decoding, stamp
from geodiff.data.pixels import decoded, of_array
from geodiff.data.stream import Item, Stream, stacked

_PICTURES = ("png", "jpg", "jpeg", "webp")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_BLOCK = 512
_GZIP = b"\x1f\x8b"


def expand(name: str) -> list[Path]:
    """The shards that a name with {000000..000146} stands for, in order; FileNotFoundError for one that is missing."""
    match = _RANGE.search(name)
    if match is None:
        return [Path(name).expanduser()]
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise ValueError(f"source: expected {{first..last}} with first <= last, found {match[0]!r}")
    paths = []
    for number in range(first, last + 1):
        paths += expand(f"{name[: match.start()]}{number:0{len(match[1])}d}{name[match.end() :]}")
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"source: no such file: {str(path)!r}, of {name!r}")
    return paths


def open_stream(paths: list[Path], mode: str | None = None) -> Stream:
    """Points and labels of all shards in order, each read once from front to back."""

    def items(first: int) -> Iterator[Item]:
        number = 0
        for path in paths:
            for key, fields in samples(path):
                if number >= first:
                    where = f"{path}: {key}"
                    field = _point_field(fields, where)
                    yield Item(_point(field, fields[field], where, mode), _label(fields, where), where)
                number += 1

    def read(first: int) -> Iterator[Contents]:
        return stacked(items(first))

    def identity() -> str:
        return " ".join(map(stamp, paths)) + f" {mode}"

    for path in paths:
        check_file(path)
    return Stream(paths[0].name if len(paths) == 1 else f"{paths[0].name} .. {paths[-1].name}", identity, read)


def samples(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """key and fields of each sample of a shard. Raises DataError that names shard, member and remedy."""
    key: str | None = None
    fields: dict[str, bytes] = {}
    for name, content in _members(path):
        found, field = _split(name)
        if found != key:
            if key is not None:
                yield key, fields
            key, fields = found, {}
        if field in fields:
            raise DataError(
                f"{path}: {name}", f"field {field!r}: found twice in one sample; give each sample its own key"
            )
        fields[field] = content
    if key is not None:
        yield key, fields


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each member that belongs to a sample, in order."""
    with check_file(path).open("rb") as file:
        if file.read(2) == _GZIP:
            raise DataError(path, "compressed by gzip; expected a plain .tar: gunzip it")
        file.seek(0)
        yield from _members_of(file, path)


def _members_of(file: IO[bytes], path: Path) -> Iterator[tuple[str, bytes]]:
    with decoding(path, "a .tar archive"), tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            base = member.name.rpartition("/")[2]
            if member.isdir() or "." not in base or (base.startswith("__") and base.endswith("__")):
                continue
            if not member.isreg():  # skipped, its sample would be missing, and nobody would know
                raise DataError(
                    f"{path}: {member.name}",
                    f"expected a file, found {f'a link to {member.linkname!r}' if member.linkname else 'a device'}; "
                    f"write the archive with tar --dereference --hard-dereference",
                )
            check_size(member.size, MOST, f"{path}: {member.name}")
            stream = archive.extractfile(member)
            content = b"" if stream is None else stream.read()
            if len(content) < member.size:
                raise DataError(path, f"truncated: {member.name} ends after {len(content)} of {member.size} bytes")
            yield member.name, content
        _check_end(file, archive.offset, path)


def _check_end(file: IO[bytes], offset: int, path: Path) -> None:
    """A tar ends with blocks of zeros; one that stops between two members would read as a shorter one otherwise."""
    file.seek(max(0, offset - _BLOCK))
    if not any(block == bytes(_BLOCK) for block in (file.read(_BLOCK), file.read(_BLOCK))):
        raise DataError(path, "truncated: the block of zeros that ends a .tar archive is missing; fetch it again")
    while rest := file.read(2**20):
        if any(rest):
            raise DataError(
                path, "damaged, or several archives in one file: found data behind the block of zeros; give each alone"
            )


def _split(name: str) -> tuple[str, str]:
    folder, slash, base = name.rpartition("/")
    stem, _, field = base.partition(".")
    return f"{folder}{slash}{stem}", field.lower()


def _point_field(fields: dict[str, bytes], where: str) -> str:
    found = next((name for name in fields if name.removesuffix(".gz") in (*_PICTURES, "npy")), None)
    if found is None:
        raise DataError(where, f"fields: found {', '.join(fields)}; expected one of {', '.join((*_PICTURES, 'npy'))}")
    return found


def _point(field: str, content: bytes, where: str, mode: str | None) -> Tensor:
    content = _unpacked(field, content, where)
    if field.removesuffix(".gz") != "npy":
        return decoded(content, where, mode)
    with decoding(Path(where), "a .npy array"):
        return of_array(np.load(io.BytesIO(content), allow_pickle=False))


def _label(fields: dict[str, bytes], where: str) -> int | None:
    field = next((name for name in ("cls", "cls.gz") if name in fields), None)
    if field is None:
        return None
    text = _unpacked(field, fields[field], where)
    if not re.fullmatch(rb"\s*-?\d{1,18}\s*", text):
        raise DataError(where, f"cls: expected an integer in ASCII, found {text[:40]!r}")
    return int(text)


def _unpacked(field: str, content: bytes, where: str) -> bytes:
    if not field.endswith(".gz"):
        return content
    with decoding(Path(where), "a gzipped field"), gzip.open(io.BytesIO(content)) as unzipped:
        found = unzipped.read(MOST + 1)
    check_size(len(found), MOST, where)
    return found
