"""Floats that were pixels: u/255 as ToTensor makes them, u/127.5 - 1 as Normalize(0.5, 0.5) does after it.

Taken for model space, which is [-1, 1], the first are a wrong data set that looks right; and either takes four times
the memory of the pixels. Both are recognised bit for bit in float32, and become uint8 again. Where they are not, and
where pixels were made floats as they are, 0..255, a warning says so.
"""

import warnings
from collections.abc import Callable, Iterator, MutableMapping

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from geodiff.base.errors import DataError
from geodiff.data.dataset import Contents

_SAMPLE = 64  # points that are looked at
_FAR_OUT = 16  # dark pictures reach further than that, and what is not negative and meant for model space does not
#: What was warned about: `load` has looked at what a denoiser is then made of.
_told: MutableMapping[Tensor, bool] = WeakTensorKeyDictionary()


def _to_tensor(pixels: Tensor) -> Tensor:
    return pixels.float() / 255


def _normalised(pixels: Tensor) -> Tensor:
    return (pixels.float() / 255 - 0.5) / 0.5


#: what it is called -> (pixels from floats, floats from pixels)
_FORMS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "u/255, as ToTensor makes them, read as uint8 again": (lambda x: x * 255, _to_tensor),
    "u/127.5 - 1, as Normalize(0.5, 0.5) makes them, read as uint8 again": (lambda x: (x + 1) * 127.5, _normalised),
}


def recognised(pieces: Iterator[Contents], name: str) -> Iterator[Contents]:
    """Pieces of float32 pixels as uint8, by the form that the first piece has; others as they are.

    Raises DataError where a later piece has not the form of the first.
    """
    form: str | None = None
    for number, piece in enumerate(pieces):
        if number == 0:
            form = next((form for form in _FORMS if _pixels(piece.data, form) is not None), None)
        if form is None:
            yield piece
            continue
        pixels = _pixels(piece.data, form)
        if pixels is None:
            raise DataError(name, f"points: the first are {form}, later ones are not; store all as uint8 or as floats")
        yield piece._replace(data=pixels, note=form)


def _pixels(data: Tensor, form: str) -> Tensor | None:
    """The uint8 whose floats in that form are data, bit for bit; None where there are none."""
    if data.dtype != torch.float32:
        return None
    back, forth = _FORMS[form]
    pixels = back(data).round()
    if not bool(((pixels >= 0) & (pixels <= 255)).all()):
        return None
    stored = pixels.to(torch.uint8)
    return stored if torch.equal(forth(stored), data) else None


def warn_of_pixel_range(data: Tensor, name: str, stacklevel: int) -> None:
    """A UserWarning, once for a tensor, if floats that are pictures lie where pixels do: model space is [-1, 1].

    Looks at the first points. Not at other shapes, which may be anything; what has both signs is in no such range.
    """
    if data.ndim != 4 or not data.is_floating_point() or data.numel() == 0 or data in _told:
        return
    low, high = (float(value) for value in torch.aminmax(data[:_SAMPLE].detach().float()))
    if low < 0 or not (0 < high <= 1 or _FAR_OUT < high <= 255):
        return
    _told[data] = True
    white, remedy = ("1", "2 x - 1") if high <= 1 else ("255", "x / 127.5 - 1")
    warnings.warn(
        f"{name}: pictures with all values in [0, {white}] are taken as they are, in model space, which is [-1, 1]; "
        f"if 0 is black and {white} white, pass {remedy}, or uint8 pixels",
        stacklevel=stacklevel,
    )
