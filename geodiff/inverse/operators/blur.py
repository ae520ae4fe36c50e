"""Blur: every channel convolved with a kernel, at the edges with what is on the other side of the picture."""

from collections.abc import Sequence

import torch
from torch import Tensor

from geodiff.base.arguments import check_integer, check_number
from geodiff.inverse.operators.operator import Operator, check_image_shape


class Blur(Operator):
    """(A x)[p] = sum_q k[q] x[p - q], circular: in Fourier space a product with the transform K of the kernel.

    kernel  [h, w], its middle, (h // 2, w // 2), at offset 0; no larger than the pictures
    shape   (C, H, W)

    A^T is the product with conj K, and the proximal step F^-1[(conj(K) Y + rho X) / (|K|^2 + rho)].
    Raises TypeError or ValueError that names the argument.
    """

    def __init__(self, kernel: Tensor, shape: Sequence[int]) -> None:
        self.shape = self.measured = check_image_shape(shape)
        self.spectrum = spectrum(kernel, self.shape[1], self.shape[2])
        self.norm = float(self.spectrum.abs().max())

    def _forward(self, x: Tensor) -> Tensor:
        return filtered(x, self.spectrum)

    def _adjoint(self, y: Tensor) -> Tensor:
        return filtered(y, self.spectrum.conj())

    def _proximal(self, x: Tensor, y: Tensor, rho: float) -> Tensor:
        K = self.spectrum.to(x.device)
        top = K.conj() * torch.fft.fft2(y) + rho * torch.fft.fft2(x)
        return torch.fft.ifft2(top / (K.abs().square() + rho)).real


def gaussian_kernel(size: int, width: float) -> Tensor:
    """k[p] ~ exp(-|p|^2 / 2 width^2) on size x size pixels, sum 1: float64 [size, size]; size odd, width in pixels."""
    size = check_integer(size, "size", 1)
    if size % 2 == 0:
        raise ValueError(f"size: expected an odd number of pixels, found {size}; allowed 1, 3, 5, ...")
    width = check_number(width, "width", 0.0)
    places = torch.arange(size, dtype=torch.float64, device="cpu") - size // 2
    line = torch.exp(-(places / width).square() / 2)  # not over width^2, which float64 may not hold
    return torch.outer(line, line) / line.sum().square()


def spectrum(kernel: Tensor, height: int, width: int) -> Tensor:
    """The transform of a kernel [h, w] whose middle is at offset 0, complex128 [H, W]; ValueError for one too large."""
    if not isinstance(kernel, Tensor) or kernel.is_complex():
        raise TypeError(f"kernel: expected a real tensor [h, w], found {type(kernel).__name__}")
    if kernel.ndim != 2 or kernel.shape[0] > height or kernel.shape[1] > width or kernel.numel() == 0:
        raise ValueError(
            f"kernel: expected [h, w] no larger than the pictures, [{height}, {width}], found {list(kernel.shape)}"
        )
    if not bool(kernel.isfinite().all()):
        raise ValueError("kernel: expected finite values, found NaN or Inf; allowed neither")
    sheet = kernel.new_zeros(height, width, dtype=torch.float64)
    sheet[: kernel.shape[0], : kernel.shape[1]] = kernel
    centred = sheet.roll((-(kernel.shape[0] // 2), -(kernel.shape[1] // 2)), (0, 1))
    return torch.fft.fft2(centred)


def filtered(x: Tensor, by: Tensor) -> Tensor:
    """F^-1[by F x] of x [B, C, H, W] in its dtype, worked out in float64; by complex128 [H, W], of a real kernel."""
    if len(x) == 0:  # which the transform refuses
        return x.clone()
    return torch.fft.ifft2(torch.fft.fft2(x.double()) * by.to(x.device)).real.to(x.dtype)
