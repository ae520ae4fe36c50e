"""Pictures as points: encoded ones decoded, and every form of array brought to [C, H, W]."""

import io
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geodiff.base.array_like import view_array
from geodiff.base.errors import DataError
from geodiff.data.layout import CHANNELS
from geodiff.data.optional_packages import require

#: Modes of Pillow that are taken as they are.
MODES = ("L", "RGB")


def decoded(encoded: bytes, where: str, mode: str | None) -> Tensor:
    """The picture in an encoded file as viewers show it, uint8 [C, H, W]. Raises DataError that names `where`."""
    image, image_ops = (require(name, "pillow", "a picture") for name in ("PIL.Image", "PIL.ImageOps"))
    try:
        with image.open(io.BytesIO(encoded)) as file:
            if is_deep(file):
                raise DataError(where, f"pixel mode: found {file.mode} of 16 bits; allowed 8 bits")
            if getattr(file, "is_animated", False):
                raise DataError(where, "frames: found several; allowed one picture per file")
            if mode is None and file.mode in MODES and "transparency" in file.info:
                raise DataError(
                    where,
                    f"pixel mode: found {file.mode} with a transparent colour; allowed {', '.join(MODES)}, or "
                    f"mode='RGB' or 'L' to convert all",
                )
            return of_picture(image_ops.exif_transpose(file), where, mode)
    except DataError:
        raise
    except Exception as error:  # Pillow raises what its many readers do
        raise DataError(where, f"damaged, truncated or not a picture ({type(error).__name__}: {error})") from error


def of_picture(picture: Any, where: str, mode: str | None) -> Tensor:
    """A picture of Pillow as uint8 [C, H, W]; modes other than L and RGB only where `mode` says what they become."""
    if mode is None and picture.mode not in MODES:
        raise DataError(
            where, f"pixel mode: found {picture.mode}; allowed {', '.join(MODES)}, or mode='RGB' or 'L' to convert all"
        )
    pixels = np.array(picture if mode in (None, picture.mode) else picture.convert(mode))
    return chw(torch.from_numpy(pixels))


def chw(pixels: Tensor) -> Tensor:
    """[H, W] or [H, W, C] -> [C, H, W]."""
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def of_array(array: "np.ndarray[Any, Any] | Tensor") -> Tensor:
    """An array as a point: [H, W] gains its channel; [H, W, C] becomes [C, H, W] where only the last axis can be C.

    Where both could be, a numpy array is [H, W, C], as libraries of pictures have it, and a tensor [C, H, W].
    """
    point = view_array(array) if isinstance(array, np.ndarray) else array
    if point.ndim == 2:
        return point[None]
    if point.ndim == 3:
        last, first = point.shape[2] in CHANNELS, point.shape[0] in CHANNELS
        if last and (not first or isinstance(array, np.ndarray)):
            return point.permute(2, 0, 1)
    return point


def is_deep(file: Any) -> bool:
    """Whether Pillow would cut 16-bit samples to 8: it opens 16-bit colour as "RGB", and only its decoder knows."""
    for tile in file.tile:
        args = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(arg, str) and re.search(r";16[BLN]", arg) for arg in args):
            return True
        if tile[0] in ("ppm", "ppm_plain") and len(args) > 1 and isinstance(args[1], int) and args[1] > 255:
            return True
    return False
