"""Floats that were pixels: u/255 as ToTensor makes them, u/127.5 - 1 as Normalize(0.5, 0.5) does after it.

Taken for model space, which is [-1, 1], the first are a wrong data set that looks right; and either takes four times
the memory of the pixels. Both are recognised bit for bit in float32, and become uint8 again.
"""

import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from geodiff.base.errors import DataError
from geodiff.data.dataset import Contents


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

    Raises DataError where a later piece has not the form of the first. Warns of floats that all lie in [0, 1].
    """
    form: str | None = None
    for number, piece in enumerate(pieces):
        if number == 0:
            form = next((form for form in _FORMS if _pixels(piece.data, form) is not None), None)
            if form is None and piece.data.is_floating_point():
                warn_of_unit_range(piece.data, name)
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


def warn_of_unit_range(data: Tensor, name: str) -> None:
    """A UserWarning if floats that are pictures all lie in [0, 1]: model space is [-1, 1]."""
    if data.ndim != 4 or not data.is_floating_point() or data.numel() == 0:
        return
    low, high = (float(value) for value in torch.aminmax(data.float()))
    if low >= 0 and 0 < high <= 1:
        warnings.warn(
            f"{name}: pictures with all values in [0, 1] are taken as they are, in model space, which is [-1, 1]; "
            f"if 0 is black and 1 white, pass 2 x - 1, or uint8 pixels",
            stacklevel=3,
        )
