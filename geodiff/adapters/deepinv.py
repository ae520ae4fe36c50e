"""Denoisers and operators of this package for deepinv, and its operators for this package (needs the package deepinv).

deepinv's images lie in 0 .. 1, ours in -1 .. 1: x = 2 u - 1, sigma = 2 sigma_u, and y = A x = 2 A u - A 1.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from deepinv.models import Denoiser
from deepinv.physics import GaussianNoise, LinearPhysics
from torch import Tensor

from geodiff.inverse import Linear, Operator, Problem


class DeepinvDenoiser(Denoiser):  # type: ignore[misc]  # deepinv is untyped
    """u -> (r(2 u - 1; 2 sigma) + 1) / 2: any denoiser r(x [B, *shape], sigma [B]) as a denoiser of deepinv."""

    def __init__(self, denoiser: Callable[..., Tensor]) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: Any) -> Tensor:
        """[B, *shape] in the dtype of x; sigma a number, 0-d, [B] or [B, 1, ...]; kwargs go to the denoiser."""
        levels = torch.as_tensor(sigma, dtype=torch.float64, device=x.device).reshape(-1).expand(len(x))
        return (self.denoiser(2 * x - 1, 2 * levels, **kwargs) + 1) / 2


class OperatorPhysics(LinearPhysics):  # type: ignore[misc]
    """Our operator as a linear physics of deepinv, with its closed-form proximal step.

    operator  A
    sigma     sigma_n of the measurement in our units; deepinv is told half of it
    """

    def __init__(self, operator: Operator, sigma: float) -> None:
        super().__init__(noise_model=GaussianNoise(sigma / 2), img_size=operator.shape)
        self.operator = operator

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:
        """A u."""
        return self.operator(x)

    def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:
        """A^T y."""
        return self.operator.adjoint(y)

    def prox_l2(self, z: Tensor, y: Tensor, gamma: float | Tensor, **kwargs: Any) -> Tensor:
        """argmin_u gamma |A u - y|^2 / 2 + |u - z|^2 / 2."""
        return self.operator.proximal(z, y, 1 / float(gamma))


def physics_of(problem: Problem) -> tuple[OperatorPhysics, Tensor]:
    """The problem as deepinv has it: the physics, and the measurement (y + A 1) / 2 of u = (x + 1) / 2."""
    ones = problem.y.new_ones(1, *problem.operator.shape)
    return OperatorPhysics(problem.operator, problem.sigma), (problem.y + problem.operator(ones)) / 2


def operator_of(physics: LinearPhysics, shape: Sequence[int]) -> Linear:
    """A linear physics of deepinv as an operator of ours; shape is that of an image, without the batch.

    The proximal step is by conjugate gradients, to `Linear`'s tolerance in float64.
    """

    def forward(x: Tensor) -> Tensor:
        return physics.to(x.dtype).A(x)

    def adjoint(y: Tensor) -> Tensor:
        return physics.to(y.dtype).A_adjoint(y)

    return Linear(forward, adjoint, shape)
