"""Super-resolution from a picture that was scaled down the usual way."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from geodiff.base.arguments import check_integer
from geodiff.inverse.operators.operator import Operator, check_image_shape


class Bicubic(Operator):
    """A x = D_h x D_w^T: every channel scaled down by `factor` with the bicubic filter, antialiased.

    factor  s >= 1; measured is (C, floor(H / s), floor(W / s))
    shape   (C, H, W)

    What `torch.nn.functional.interpolate(mode="bicubic", antialias=True)` gives, as two matrices. With their singular
    vectors A^T A is diagonal with eigenvalues lambda_h lambda_w, and the proximal step exact; DiffPIR's step for this
    task, x + gamma up(y - down x) / (1 + rho), is one step of an iteration towards it.
    Raises TypeError or ValueError that names the argument.
    """

    def __init__(self, factor: int, shape: Sequence[int]) -> None:
        self.shape = channels, height, width = check_image_shape(shape)
        self.factor = check_integer(factor, "factor", 1, min(height, width))
        self.measured = (channels, height // self.factor, width // self.factor)
        self.rows, self.columns = scaling(height, self.measured[1]), scaling(width, self.measured[2])
        self._by_rows, self._by_columns = (torch.linalg.svd(m, full_matrices=False) for m in (self.rows, self.columns))
        self.norm = float(self._by_rows.S.max() * self._by_columns.S.max())

    def _forward(self, x: Tensor) -> Tensor:
        return self.rows.to(x) @ x @ self.columns.to(x).T

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.rows.to(y).T @ y @ self.columns.to(y)

    def _proximal(self, x: Tensor, y: Tensor, rho: float) -> Tensor:
        (u, s, _), (v, t, _) = ((part.to(x.device) for part in svd) for svd in (self._by_rows, self._by_columns))
        residual = u.T @ (y - self._forward(x)) @ v
        return x + self._adjoint(u @ (residual / (torch.outer(s, t).square() + rho)) @ v.T)


def scaling(length: int, scaled: int) -> Tensor:
    """The bicubic filter that takes a line of `length` pixels to one of `scaled`, float64 [scaled, length]."""
    # As one picture of unit lines: torch 2.13 scales a batch of pictures one pixel wide wrongly.
    lines = torch.eye(length, dtype=torch.float64, device="cpu")[None, None]
    return F.interpolate(lines, size=(scaled, length), mode="bicubic", antialias=True)[0, 0]
