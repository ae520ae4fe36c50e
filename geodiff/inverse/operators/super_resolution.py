"""Super-resolution: a picture is blurred, and every s-th pixel of it is seen."""

from collections.abc import Sequence

import torch
from torch import Tensor

from geodiff.base.arguments import check_integer
from geodiff.inverse.operators.blur import filtered, spectrum
from geodiff.inverse.operators.operator import Operator, check_image_shape


class SuperResolution(Operator):
    """A = S K: the circular blur of `Blur`, then pixels (0, 0), (0, s), ... (s, 0), ... of each channel.

    factor  s >= 1, which divides H and W
    kernel  [h, w], as for `Blur`
    shape   (C, H, W); measured is (C, H / s, W / s)

    Taking every s-th pixel folds s^2 frequencies onto one (aliasing), so A A^T is a product in the small Fourier space
    with the block mean of |K|^2, and the proximal step is x + A^T (A A^T + rho)^-1 (y - A x): Zhao et al., 2016, as
    used in DiffPIR. Raises TypeError or ValueError that names the argument.
    """

    def __init__(self, factor: int, kernel: Tensor, shape: Sequence[int]) -> None:
        self.shape = channels, height, width = check_image_shape(shape)
        self.factor = check_integer(factor, "factor", 1)
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"factor: expected a divisor of H = {height} and W = {width}, found {self.factor}; "
                f"allowed one, or pictures padded to a multiple of it"
            )
        self.measured = (channels, height // self.factor, width // self.factor)
        self.spectrum = spectrum(kernel, height, width)
        blocks = self.spectrum.abs().square().reshape(self.factor, self.measured[1], self.factor, self.measured[2])
        self.folded = blocks.mean((0, 2))  # [H / s, W / s], the eigenvalues of A A^T
        self.norm = float(self.folded.max().sqrt())

    def _forward(self, x: Tensor) -> Tensor:
        return filtered(x, self.spectrum)[..., :: self.factor, :: self.factor]

    def _adjoint(self, y: Tensor) -> Tensor:
        sheet = y.new_zeros(len(y), *self.shape)
        sheet[..., :: self.factor, :: self.factor] = y
        return filtered(sheet, self.spectrum.conj())

    def _proximal(self, x: Tensor, y: Tensor, rho: float) -> Tensor:
        residual = torch.fft.fft2(y - self._forward(x)) / (self.folded.to(x.device) + rho)
        return x + self._adjoint(torch.fft.ifft2(residual).real)
