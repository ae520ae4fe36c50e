"""Any linear operator, given as two functions."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from geodiff.analysis.lanczos import largest_eigenvalue
from geodiff.base.arguments import check_number
from geodiff.base.per_point import per_point
from geodiff.inverse.operators.operator import Operator, check_shape

Map = Callable[[Tensor], Tensor]

_PROBES, _LEAST = 128, 32
_NUMBERS = 2**24  # that Lanczos' method keeps, which takes fewer probes of large images
_UNLIKELY = 1e-9
_MOST = 1000


class Linear(Operator):
    """A and A^T as functions; the proximal step by conjugate gradients on (A^T A + rho) z = A^T y + rho x.

    forward   A: [B, *shape] -> [B, *measured], for float32 and float64
    adjoint   A^T: [B, *measured] -> [B, *shape]; one that is not the adjoint of A is found out and refused
    shape     of an image
    tol       of the proximal step: |residual| <= tol |right side| for each image

    norm comes from Lanczos' method, from below, raised by what that may be short of: with a random start by more in one
    of 1e9 cases at most (Kuczynski and Wozniakowski, 1992, theorem 4.2), by less than a hundredth for d up to 1e5.
    Raises TypeError or ValueError that names the argument, and RuntimeError where conjugate gradients do not arrive
    within 1000 iterations.
    """

    def __init__(self, forward: Map, adjoint: Map, shape: Sequence[int], *, tol: float = 1e-9) -> None:
        self.shape = check_shape(shape)
        self.tol = check_number(tol, "tol", 0.0, 1e-2)
        self._A, self._At = forward, adjoint
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(1, *self.shape, generator=generator, dtype=torch.float64, device="cpu")
        self.measured = tuple(forward(x).shape[1:])
        y = torch.randn(1, *self.measured, generator=generator, dtype=torch.float64, device="cpu")
        seen, back = forward(x), adjoint(y)
        if back.shape != x.shape:
            raise ValueError(f"adjoint: expected answers of {list(x.shape)}, found {list(back.shape)}")
        apart = float(((seen * y).sum() - (x * back).sum()).abs() / (seen.norm() * y.norm()).clamp_min(1e-300))
        if not apart <= 1e-6:  # nor NaN
            raise ValueError(
                f"adjoint: expected <A x, y> = <x, A^T y>, found them {apart:.1e} |A x| |y| apart for random x and y; "
                f"allowed the adjoint of forward"
            )
        probes = min(_PROBES, max(_LEAST, _NUMBERS // x.numel()))
        largest = float(largest_eigenvalue(lambda v: adjoint(forward(v)), x, iterations=probes, tol=0.0)[0])
        self.norm = math.sqrt(max(0.0, largest) / (1 - _shortfall(x.numel(), probes)))

    def _forward(self, x: Tensor) -> Tensor:
        return self._A(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._At(y)

    def _proximal(self, x: Tensor, y: Tensor, rho: float) -> Tensor:
        # From x on, in the step away from it: what is left to do is small where x nearly fits.
        right = self._At(y - self._A(x))
        scale = (self._At(y) + rho * x).flatten(1).norm(dim=1)
        return x + conjugate_gradients(lambda z: self._At(self._A(z)) + rho * z, right, self.tol * scale)


def _shortfall(d: int, steps: int) -> float:
    """e of P(theta < (1 - e) lambda) <= 1.648 sqrt(d) exp(-sqrt(e) (2 k - 1)) after k steps; after d, of rounding."""
    if d <= steps:
        return _UNLIKELY
    return (math.log(1.648 * math.sqrt(d) / _UNLIKELY) / (2 * steps - 1)) ** 2


def conjugate_gradients(matrix: Map, right: Tensor, allowed: Tensor) -> Tensor:
    """z with M z = b for a symmetric positive definite M, image by image, from z = 0 (Hestenes and Stiefel, 1952).

    matrix M on [B, *shape]; right b; allowed [B]: |b - M z| at which an image is done. RuntimeError after 1000 steps.
    """

    def inner(a: Tensor, b: Tensor) -> Tensor:
        return per_point((a * b).flatten(1).sum(1), a)

    target = per_point(allowed, right).square()
    z, residual = torch.zeros_like(right), right
    direction, size = residual, inner(residual, residual)
    for _ in range(_MOST):
        left = size > target
        if not bool(left.any()):
            return z
        through = matrix(direction)
        step = torch.where(left, size / inner(direction, through), 0.0)  # an image that is done stays as it is
        z = z + step * direction
        residual = residual - step * through
        before, size = size, torch.where(left, inner(residual, residual), size)
        direction = residual + torch.where(left, size / before, 0.0) * direction
    raise RuntimeError(
        f"proximal: conjugate gradients are {float((size / target).max().sqrt()):.1e} times the tolerance away after "
        f"{_MOST} iterations; allowed a larger tol, or an operator with a closed form"
    )
