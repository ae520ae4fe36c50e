"""Inpainting: some pixels are seen, the others are not."""

import torch
from torch import Tensor

from geodiff.base.arguments import check_number
from geodiff.inverse.operators.operator import Operator


class Inpainting(Operator):
    """A x = m * x: pixels where the mask m is 1 are seen, the others read 0; A^T = A.

    mask  [*shape], bool or numbers, one for all images; weights other than 0 and 1 are taken as they are

    Proximal step (m y + rho x) / (m^2 + rho), pixel by pixel. Raises TypeError or ValueError that names the argument.
    """

    def __init__(self, mask: Tensor) -> None:
        if not isinstance(mask, Tensor) or mask.is_complex():
            raise TypeError(f"mask: expected a real tensor, found {type(mask).__name__}; allowed [*shape]")
        if mask.numel() == 0 or not bool(mask.isfinite().all()):
            raise ValueError(
                f"mask: expected finite weights, found {list(mask.shape)}; allowed no NaN, no Inf, not empty"
            )
        self.mask = mask.double()
        self.shape = self.measured = tuple(mask.shape)
        self.norm = float(self.mask.abs().max())

    @classmethod
    def random(
        cls, shape: tuple[int, ...], keep: float = 0.5, *, generator: torch.Generator | None = None
    ) -> "Inpainting":
        """Every pixel of [*shape] is seen with probability keep, 0 < keep <= 1; all channels of a pixel, or none."""
        keep = check_number(keep, "keep", 0.0, 1.0)
        places = (1, *shape[1:]) if len(shape) == 3 else tuple(shape)
        return cls(
            (torch.rand(places, generator=generator, dtype=torch.float64, device="cpu") < keep).expand(shape).clone()
        )

    def observed(self, y: Tensor) -> Tensor:
        """y where the mask is not 0, else 0."""
        return torch.where((self.mask != 0).to(y.device), y, 0.0)

    def _forward(self, x: Tensor) -> Tensor:
        return x * self.mask.to(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._forward(y)

    def _proximal(self, x: Tensor, y: Tensor, rho: float) -> Tensor:
        mask = self.mask.to(x)
        return (mask * y + rho * x) / (mask.square() + rho)
