"""Folders of images: one file per point, subfolders as classes."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from geodiff.base.errors import DataError
from geodiff.data.dataset import Contents
from geodiff.data.decoding import decoding
from geodiff.data.optional import require

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
_CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
# What each 8-bit mode of Pillow becomes. 16-bit and float modes are missing: 8 bits would not hold them.
_MODES = {"1": "L", "L": "L", "LA": "RGBA", "P": "RGB", "PA": "RGBA", "RGB": "RGB", "RGBA": "RGBA", "CMYK": "RGB"}


def read_folder(folder: Path, limit: int | None) -> Contents:
    """Images [N, C, H, W] uint8, sorted by path (as text, so 10.png comes before 2.png), the first `limit` of them.

    Where the images lie in subfolders, the subfolders' names in sorted order are the classes 0, 1, ... All images must
    have one size. Grey, RGB and RGBA may be mixed: C is the least that holds them all without loss.
    """
    image = require("PIL.Image", "pillow", "a folder of images")
    paths, labels, classes = _list(folder)
    paths = paths[:limit]
    size, mode = _common_form(paths, image)
    data = torch.empty((len(paths), _CHANNELS[mode], size[1], size[0]), dtype=torch.uint8)
    for point, path in zip(data, paths, strict=True):
        with decoding(path, "an image"), image.open(path) as file:
            pixels: np.ndarray[Any, Any] = np.array(file.convert(mode))
        point.copy_(torch.from_numpy(pixels.reshape(size[1], size[0], -1)).permute(2, 0, 1))
    return Contents(data, torch.tensor(labels) if classes else None, classes, is_chw=True)


def _list(folder: Path) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """Image paths, their labels, and the class names (none where the images lie in the folder itself)."""
    here = sorted(path for path in folder.iterdir() if _is_image(path))
    members = {
        child.name: sorted(path for path in child.rglob("*") if _is_image(path))
        for child in sorted(folder.iterdir())
        if child.is_dir() and not child.name.startswith(".")
    }
    members = {name: paths for name, paths in members.items() if paths}
    if here and members:
        raise DataError(here[0], f"lies beside the class folder {min(members)!r}; expected images in one or the other")
    if not here and not members:
        kinds = ", ".join(SUFFIXES)
        raise DataError(folder, f"the folder holds no data; expected images ({kinds}), MNIST IDX or CIFAR files")
    if here:
        return here, [], ()
    labels = [label for label, paths in enumerate(members.values()) for _ in paths]
    return [path for paths in members.values() for path in paths], labels, tuple(members)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _common_form(paths: list[Path], image: ModuleType) -> tuple[tuple[int, int], str]:
    """(width, height) and mode for all, from the headers alone, so that a misfit shows before anything is decoded."""
    common: tuple[int, int] = (0, 0)
    modes = set()
    for path in paths:
        with decoding(path, "an image"), image.open(path) as file:
            size, stored, transparent = file.size, file.mode, "transparency" in file.info
            animated = getattr(file, "is_animated", False)
        if path is paths[0]:
            common = size
        if size != common:
            expected = f"{common[0]}x{common[1]} as in {paths[0].name}"
            raise DataError(path, f"size: found {size[0]}x{size[1]}, expected {expected}")
        if stored not in _MODES:
            raise DataError(path, f"pixel mode: found {stored}; allowed the 8-bit modes {', '.join(_MODES)}")
        if animated:
            raise DataError(path, "frames: found several; allowed one image per file")
        modes.add("RGBA" if transparent else _MODES[stored])
    return common, max(modes, key=lambda mode: _CHANNELS[mode])
