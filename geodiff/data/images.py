"""Folders of images: one file per point, subfolders as classes."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from geodiff.base.errors import DataError
from geodiff.data.dataset import Contents
from geodiff.data.decoding import decoding
from geodiff.data.folders import class_folders, list_images
from geodiff.data.optional_packages import require
from geodiff.data.pixels import is_deep

_CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
# What each 8-bit mode of Pillow becomes. 16-bit and float modes are missing: 8 bits would not hold them.
_MODES = {"1": "L", "L": "L", "LA": "RGBA", "P": "RGB", "PA": "RGBA", "RGB": "RGB", "RGBA": "RGBA", "CMYK": "RGB"}
_ORIENTATION = 0x0112  # of EXIF: how the picture is to be turned before it is shown
_ON_ITS_SIDE = (5, 6, 7, 8)


def read_folder(
    folder: Path, limit: int | None, classes: Sequence[str] | None = None, mode: str | None = None
) -> Contents:
    """Images [N, C, H, W] uint8, sorted by path (as text, so 10.png comes before 2.png), the first `limit` of them.

    Where the images lie in subfolders, the subfolders' names in sorted order are the classes 0, 1, ..., those without
    images included; `classes` names them instead, for folders that are to agree.
    All images must have one size. Grey, RGB and RGBA may be mixed: C is the least that holds them all without loss, or
    what `mode` says, "L" or "RGB", that all are to become.
    An EXIF orientation is followed: pixels lie as viewers show them.
    """
    image = require("PIL.Image", "pillow", "a folder of images")
    listing = list_images(folder, class_folders(folder) if classes is None else classes)
    paths = listing.paths[:limit]
    size, common = _common_form(paths, image)
    mode = common if mode is None else mode
    upright = require("PIL.ImageOps", "pillow", "a folder of images").exif_transpose
    data = torch.empty((len(paths), _CHANNELS[mode], size[1], size[0]), dtype=torch.uint8, device="cpu")
    for point, path in zip(data, paths, strict=True):
        with decoding(path, "an image"), image.open(path) as file:
            pixels: np.ndarray[Any, Any] = np.array(upright(file).convert(mode))
        if pixels.shape[:2] != size[::-1]:  # turned by EXIF behind the pixels of a PNG
            raise DataError(
                path, f"size: found {pixels.shape[1]}x{pixels.shape[0]} once turned, expected {size[0]}x{size[1]}"
            )
        point.copy_(torch.from_numpy(pixels.reshape(size[1], size[0], -1)).permute(2, 0, 1))
    labels = None if listing.labels is None else torch.tensor(listing.labels, device="cpu")
    return Contents(data, labels, listing.classes, is_chw=True, left_out=listing.left_out)


def _common_form(paths: list[Path], image: ModuleType) -> tuple[tuple[int, int], str]:
    """(width, height) and mode for all, from the headers alone, so that a misfit shows before anything is decoded."""
    common: tuple[int, int] = (0, 0)
    modes = set()
    for path in paths:
        with decoding(path, "an image"), image.open(path) as file:
            size, stored, transparent = _upright_size(file), file.mode, "transparency" in file.info
            animated, deep = getattr(file, "is_animated", False), is_deep(file)
        if path is paths[0]:
            common = size
        if size != common:
            expected = f"{common[0]}x{common[1]} as in {paths[0].name}"
            raise DataError(path, f"size: found {size[0]}x{size[1]}, expected {expected}")
        if stored not in _MODES or deep:
            found = f"{stored} of 16 bits" if deep and stored in _MODES else stored
            raise DataError(path, f"pixel mode: found {found}; allowed the 8-bit modes {', '.join(_MODES)}")
        if animated:
            raise DataError(path, "frames: found several; allowed one image per file")
        modes.add("RGBA" if transparent else _MODES[stored])
    return common, max(modes, key=lambda mode: _CHANNELS[mode])


def _upright_size(file: Any) -> tuple[int, int]:
    """(width, height) as the picture is shown. Of a TIFF Pillow itself gives them so."""
    width, height = file.size
    if file.format == "TIFF" or (file.format == "PNG" and "exif" not in file.info):
        return width, height  # getexif would decode a PNG, to look for EXIF behind its pixels
    return (height, width) if file.getexif().get(_ORIENTATION) in _ON_ITS_SIDE else (width, height)
