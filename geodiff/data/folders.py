"""What lies in a folder of images: the images, their classes, and what is left out, by name."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from geodiff.base.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
#: What desktops put into every folder that they show, and archives of macOS beside every file.
_OF_THE_SYSTEM = re.compile(r"\.DS_Store|Thumbs\.db|desktop\.ini|\._.*", re.IGNORECASE)


class Listing(NamedTuple):
    """paths: sorted, class by class; labels: one for each path, or None; classes: names, where folders have them."""

    paths: list[Path]
    labels: list[int] | None
    classes: tuple[str, ...]
    left_out: tuple[str, ...]


def class_folders(folder: Path) -> list[str]:
    """The names of the subfolders that are classes, if the images lie in them; sorted, empty ones included."""
    return sorted(child.name for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def list_images(folder: Path, classes: Iterable[str]) -> Listing:
    """The images of a folder, or of its subfolders `classes`, which are numbered in that order, present or not.

    Links are followed. Raises DataError for a folder without images, for images in both places, and for links to what
    is not there.
    """
    here, left_out = _sift(folder, os.scandir(folder), folder)
    members: dict[str, list[Path]] = {}
    for name in classes:
        members[name] = []
        if (folder / name).is_dir():
            members[name], others = walk(folder / name, folder)
            left_out += others
    full = [name for name, paths in members.items() if paths]
    if here and full:
        raise DataError(here[0], f"lies beside the class folder {full[0]!r}; expected images in one or the other")
    if not here and not full:
        kinds = ", ".join(SUFFIXES)
        raise DataError(folder, f"the folder holds no data; expected images ({kinds}), MNIST IDX or CIFAR files")
    if here:
        return Listing(here, None, (), tuple(left_out))
    paths = [path for name in members for path in members[name]]
    labels = [label for label, name in enumerate(members) for _ in members[name]]
    return Listing(paths, labels, tuple(members), tuple(left_out))


def beside(folder: Path) -> list[str]:
    """The names of what lies beside the subfolders of a folder that holds splits: none of it is read."""
    images, left_out = _sift(folder, os.scandir(folder), folder)
    return [*(path.name for path in images), *left_out]


def walk(top: Path, base: Path) -> tuple[list[Path], list[str]]:
    """All images below `top`, sorted, and all other files by their name below `base`."""
    images: list[Path] = []
    left_out: list[str] = []
    inside = {os.path.realpath(top)}  # folders that were entered: a link back to one of them ends here

    def enter(folder: Path) -> None:
        found, others = _sift(folder, os.scandir(folder), base)
        images.extend(found)
        left_out.extend(others)
        for child in sorted(folder.iterdir()):
            if not child.is_dir() or child.name.startswith("."):
                continue
            real = os.path.realpath(child)
            if child.is_symlink() and any(up == real or up.startswith(real + os.sep) for up in inside):
                continue
            inside.add(real)
            enter(child)
            inside.discard(real)

    enter(top)
    return sorted(images), left_out


def is_of_the_system(name: str) -> bool:
    """Whether a file of that name is nobody's data, so that leaving it out needs no word."""
    return _OF_THE_SYSTEM.fullmatch(name.rpartition("/")[2]) is not None


def _sift(folder: Path, entries: "Iterable[os.DirEntry[str]]", base: Path) -> tuple[list[Path], list[str]]:
    """Of what lies in one folder: images, sorted, and the names of what is neither an image nor a folder to enter."""
    images, left_out = [], []
    for entry in sorted(entries, key=lambda entry: entry.name):
        path = folder / entry.name
        if entry.is_symlink() and not path.exists():
            raise DataError(path, f"a link to {os.readlink(path)}, which is not there; expected an image or a folder")
        hidden = entry.name.startswith(".")
        if path.is_file() and path.suffix.lower() in SUFFIXES and not hidden:
            images.append(path)
        elif (hidden or not path.is_dir()) and not is_of_the_system(entry.name):
            left_out.append(path.relative_to(base).as_posix() + ("/" if path.is_dir() else ""))
    return images, left_out
