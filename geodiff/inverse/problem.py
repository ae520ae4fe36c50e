"""An inverse problem: what was measured, of what, and how much noise is in it."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from geodiff.base.arguments import SIGMA_MAX, SIGMA_MIN, check_finite, check_number, check_query_shape
from geodiff.base.dtypes import PRECISE
from geodiff.inverse.operators import Operator


@dataclass(frozen=True, eq=False)
class Problem:
    """y = A x_0 + sigma_n n, n ~ N(0, I): find x_0, [B, *shape].

    operator  A
    y         [B, *measured] float32 or float64, on the device where it is to be solved and in the dtype of the answer
    sigma     sigma_n, 1e-12 .. 1e12, in units of model space, where pictures lie in [-1, 1]

    Raises TypeError or ValueError that names the argument.
    """

    operator: Operator
    y: Tensor
    sigma: float

    def __post_init__(self) -> None:
        given: object = self.operator
        if not isinstance(given, Operator):
            found = type(given).__name__
            raise TypeError(f"operator: expected an Operator, found {found}; allowed Linear(A, A^T, shape)")
        y = check_query_shape(self.y, self.operator.measured, dtypes=PRECISE, name="y")
        check_finite(y, "y")
        object.__setattr__(self, "y", self.operator.observed(y.detach()))
        # Whose square, and what it is divided by, float64 holds.
        object.__setattr__(self, "sigma", check_number(self.sigma, "sigma", SIGMA_MIN, SIGMA_MAX, ends="[]"))

    @classmethod
    def simulated(
        cls, operator: Operator, truth: Tensor, sigma: float, *, generator: torch.Generator | None = None
    ) -> Self:
        """The problem whose answer is truth [B, *shape]: y = A truth + sigma n. The same on every device."""
        clean = operator(truth)
        n = torch.randn(clean.shape, generator=generator, dtype=clean.dtype, device="cpu").to(clean.device)
        return cls(operator, clean + check_number(sigma, "sigma", 0.0) * n, sigma)

    def __len__(self) -> int:
        """B."""
        return len(self.y)

    def residual(self, x: Tensor) -> Tensor:
        """y - A x, [B, *measured]; autograd may follow."""
        return self.y - self.operator(x)

    def misfit(self, x: Tensor) -> Tensor:
        """|y - A x| of each image, [B]; autograd may follow."""
        return self.residual(x).flatten(1).norm(dim=1)

    def adjoint(self) -> Tensor:
        """A^T y, [B, *shape]: what is known before any prior."""
        return self.operator.adjoint(self.y)

    def proximal(self, x: Tensor, rho: float) -> Tensor:
        """argmin_z |y - A z|^2 + rho |z - x|^2, [B, *shape]: see `Operator.proximal`."""
        return self.operator.proximal(x, self.y, rho)
