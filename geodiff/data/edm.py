"""The data sets of EDM, EDM2 and StyleGAN: a zip or folder of pictures, or latents, with labels in dataset.json.

Format: members such as 00000/img00000000.png; dataset.json at the root, {"labels": [[name, label], ...] or null}.
Points come in the order of their sorted names, and labels are looked up by name. Source: the public repositories
NVlabs/edm, snapshot 008a4e5 (training/dataset.py), and NVlabs/edm2, snapshot 4bf8162.
"""

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import torch
from torch import Tensor

from geodiff.base.errors import DataError
from geodiff.data import latents
from geodiff.data.archives import check_directory, check_unread
from geodiff.data.dataset import Contents
from geodiff.data.decoding import MOST, check_file, check_size, decoding, stamp
from geodiff.data.folders import SUFFIXES, is_of_the_system, walk
from geodiff.data.pixels import decoded
from geodiff.data.stream import Item, Stream, stacked

_TABLE = "dataset.json"
_NUMBERED = re.compile(r"\d{5}/img\d{8}\.\w+")


class _Members(Protocol):
    """Files by name, in a zip or a folder."""

    path: Path

    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...

    def stamp(self) -> str: ...

    def check_unread(self, names: list[str]) -> None: ...


class _Zip:
    def __init__(self, path: Path) -> None:
        self.path = path
        with decoding(path, "a .zip archive"):
            self._archive = zipfile.ZipFile(path)
        check_directory(self._archive, path)
        for name in self.names():
            parts = PurePosixPath(name).parts
            if name.startswith("/") or ".." in parts or "\\" in name or ":" in name:
                raise DataError(
                    path,
                    f"member {name!r}: expected a name inside the archive, found one that leads out of it; "
                    f"make the archive anew from a source that you trust",
                )

    def names(self) -> list[str]:
        return [info.filename for info in self._archive.infolist() if not info.is_dir()]

    def read(self, name: str) -> bytes:
        info = self._archive.getinfo(name)
        check_size(info.file_size, MOST, f"{self.path}: {name}")
        with decoding(self.path, f"a .zip archive, at {name!r}"):
            return self._archive.read(info)  # checks its CRC

    def stamp(self) -> str:
        return stamp(self.path)

    def check_unread(self, names: list[str]) -> None:
        check_unread(self._archive, names, self.path)


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        images, others = walk(self.path, self.path)  # links followed
        return [*(one.relative_to(self.path).as_posix() for one in images), *others]

    def read(self, name: str) -> bytes:
        path = check_file(self.path / name)
        check_size(path.stat().st_size, MOST, path)
        return path.read_bytes()

    def stamp(self) -> str:
        stamps = [stamp(self.path / name) for name in sorted(self.names()) if (self.path / name).is_file()]
        return hashlib.sha256("/".join(stamps).encode()).hexdigest()

    def check_unread(self, names: list[str]) -> None:
        pass


def matches(folder: Path) -> bool:
    """Whether a folder is such a data set: it has dataset.json, or its pictures are numbered as EDM numbers them."""
    if (folder / _TABLE).is_file():
        return True
    return any(_NUMBERED.fullmatch(f"{one.parent.name}/{one.name}") for one in folder.glob("00000/img*"))


def open_stream(path: Path, mode: str | None = None) -> Stream:
    """Pictures as uint8 [N, C, H, W], or EDM2's latents as float32 means: see `latents`.

    Integer labels become int64 [N], vectors [N, k] float32, and null or no dataset.json none. Gray pictures are
    [1, H, W]; all must have one size and one number of channels, unless `mode` says what they become.
    Raises DataError that names archive, member and remedy.
    """
    members: _Members = _Folder(path) if path.is_dir() else _Zip(path)
    files = members.names()
    pictures = sorted(filter(_is_point, files))
    if not pictures:
        hint = "; unpack it and give the folder" if any(name.endswith(".npz") for name in files) else ""
        raise DataError(path, f"expected pictures ({', '.join(SUFFIXES)}) or .npy latents, found none{hint}")
    kinds = {name.lower().endswith(".npy") for name in pictures}
    if len(kinds) == 2:
        raise DataError(path, "expected pictures or .npy latents, found both; keep one kind")
    labels = _labels(members, files, pictures)
    left_out = sorted(one for one in {*files} - {*pictures, _TABLE} if not is_of_the_system(one))
    members.check_unread(left_out)
    encoded = kinds == {True}

    def items(first: int) -> Iterator[Item]:
        for name in pictures[first:]:
            where = f"{path}: {name}"
            point = latents.mean(members.read(name), where) if encoded else decoded(members.read(name), where, mode)
            yield Item(point, None if labels is None else labels[name], where)

    like = Contents(torch.empty(0, device="cpu"), is_chw=True, left_out=tuple(left_out))
    if encoded:
        like = like._replace(latent=True, note=latents.NOTE)

    def identity() -> str:
        return f"{path.name} {members.stamp()} {len(pictures)} {mode}"

    return Stream(path.name, identity, lambda first: stacked(items(first), like), len(pictures))


def _is_point(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in (*SUFFIXES, ".npy") and not path.name.startswith(".")


def deviations(path: Path, limit: int | None = None) -> Tensor:
    """[N, C, H, W] float32: the standard deviations of EDM2's latents, in the scale and order of their means."""
    members: _Members = _Folder(path) if path.is_dir() else _Zip(path)
    names = sorted(filter(_is_point, members.names()))[:limit]
    if not names:
        raise DataError(path, "expected .npy latents, found none")
    items = (Item(latents.deviation(members.read(name), f"{path}: {name}"), None, f"{path}: {name}") for name in names)
    return Stream(path.name, members.stamp, lambda first: stacked(items), len(names)).contents().data


def _labels(members: _Members, files: list[str], pictures: list[str]) -> dict[str, int | Tensor] | None:
    """name -> label of every picture; None where the set has none."""
    if _TABLE not in files:
        return None
    where = f"{members.path}: {_TABLE}"
    with decoding(Path(where), "a JSON table"):
        table = json.loads(members.read(_TABLE))
    if not isinstance(table, dict) or "labels" not in table:
        kind = f"keys {sorted(table)}" if isinstance(table, dict) else f"a {type(table).__name__}"
        raise DataError(where, f'expected {{"labels": [[name, label], ...]}}, or null for no labels, found {kind:.80}')
    listed = table["labels"]
    if listed is None:
        return None
    by_name = _by_name(listed, where)
    for name in pictures:
        if name not in by_name:
            raise DataError(
                where, f"labels: found none for {name!r}; add it, or set labels to null to read points without labels"
            )
    if gone := sorted(by_name.keys() - set(pictures)):
        raise DataError(
            where, f"labels: expected points that are there, found {len(gone)} of others, such as {gone[0]}"
        )
    found = {name: _label(by_name[name], f"{where}: {name}") for name in pictures}
    return None if any(label is None for label in found.values()) else {k: v for k, v in found.items() if v is not None}


def _by_name(listed: Any, where: str) -> dict[str, Any]:
    try:
        pairs = [(str(name).replace("\\", "/"), label) for name, label in listed]
    except (TypeError, ValueError) as error:
        raise DataError(where, f"labels: expected pairs [name, label], found something else ({error})") from error
    named: dict[str, Any] = {}
    for name, label in pairs:
        if named.setdefault(name, label) != label:
            raise DataError(
                where, f"labels: found {named[name]!r:.40} and {label!r:.40} for {name!r}; keep one for each point"
            )
    return named


def _label(value: Any, where: str) -> int | Tensor | None:
    if value is None or (type(value) is int and value >= 0):
        return value
    numbers = isinstance(value, list) and value and all(type(one) in (int, float) for one in value)
    if not numbers:
        raise DataError(where, f"label: expected a class 0, 1, ..., or a list of numbers, found {value!r:.60}")
    found = torch.tensor(list(map(float, value)), dtype=torch.float32, device="cpu")
    if not bool(found.isfinite().all()):
        raise DataError(where, f"label: expected finite float32 numbers, found {value!r:.60}; correct them")
    return found
