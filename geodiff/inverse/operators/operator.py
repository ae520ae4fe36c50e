"""What every linear operator of an inverse problem answers to."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from geodiff.base.arguments import check_integer, check_number, check_query_shape
from geodiff.base.dtypes import PRECISE


class Operator(ABC):
    """A linear map A from images [B, *shape] to measurements [B, *measured], with its adjoint and its proximal step.

    shape     of an image, without the batch
    measured  of a measurement, without the batch
    norm      the largest singular value of A, or a bound on it: |A x| <= norm |x|

    Calling it gives A x. Everything is answered in the dtype of what is asked, float32 or float64, and autograd may
    follow. A subclass fills in `_forward`, `_adjoint` and `_proximal`, which see checked tensors only.
    Methods raise TypeError or ValueError that names the argument.
    """

    shape: tuple[int, ...]
    measured: tuple[int, ...]
    norm: float

    def __call__(self, x: Tensor) -> Tensor:
        """A x, [B, *measured]; x [B, *shape]."""
        return self._forward(check_query_shape(x, self.shape, dtypes=PRECISE))

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y, [B, *shape]; y [B, *measured]: <A x, y> = <x, A^T y>."""
        return self._adjoint(check_query_shape(y, self.measured, dtypes=PRECISE, name="y"))

    def proximal(self, x: Tensor, y: Tensor, rho: float) -> Tensor:
        """argmin_z |y - A z|^2 + rho |z - x|^2, so (A^T A + rho) z = A^T y + rho x; [B, *shape] in the dtype of x.

        x [B, *shape], y [B, *measured], rho > 0. Solved in float64 to rounding, by a closed form; `Linear` iterates.
        The step away from x is A^T (A A^T + rho)^-1 (y - A x), what pseudo-inverse guidance asks for as well.
        """
        x = check_query_shape(x, self.shape, dtypes=PRECISE)
        y = check_query_shape(y, self.measured, dtypes=PRECISE, name="y")
        if len(x) != len(y):
            raise ValueError(f"y: expected as many measurements as x has images, B = {len(x)}, found {len(y)}")
        rho = check_number(rho, "rho", 0.0)
        if len(x) == 0:  # which transforms refuse
            return x.clone()
        return self._proximal(x.double(), y.double(), rho).to(x.dtype)

    def observed(self, y: Tensor) -> Tensor:
        """y [B, *measured] with 0 where an entry measures nothing, as unseen pixels do: such entries carry no noise."""
        return y

    @abstractmethod
    def _forward(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor: ...

    @abstractmethod
    def _proximal(self, x: Tensor, y: Tensor, rho: float) -> Tensor: ...


def check_image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W); TypeError or ValueError for other shapes."""
    sizes = check_shape(shape)
    if len(sizes) != 3:
        raise ValueError(f"shape: expected (C, H, W) of images, found {sizes}; allowed three sizes of 1 or more")
    return sizes


def check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """shape as a tuple; TypeError for anything but whole numbers, ValueError for a size below 1 or none at all."""
    try:
        sizes = tuple(shape)
    except TypeError as error:
        found = f"{type(shape).__name__} {shape!r:.60}"
        raise TypeError(
            f"shape: expected the sizes of one image, found {found}; allowed such as (1, 28, 28)"
        ) from error
    if not sizes:
        raise ValueError("shape: expected the sizes of one image, found none; allowed one or more")
    return tuple(check_integer(size, "shape", 1) for size in sizes)
