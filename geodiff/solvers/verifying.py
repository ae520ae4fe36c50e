"""Every evaluation of a trajectory computed again: `sample(..., verify=True)`."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from geodiff.backends.cost import Cost
from geodiff.denoiser.along_trajectory import AlongTrajectory
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.solvers.evaluation import Evaluator


class Verified(Evaluator):
    """The answers of `inner`, held against float64: |r - r64| <= tol max(|r64|, 0.01 max_i |x_i|), else an error.

    An update is put together from the r that was looked at, so that its last bit may be another than without.
    """

    def __init__(self, inner: Evaluator, denoiser: object, conditions: Mapping[str, Any]) -> None:
        if not isinstance(denoiser, OptimalDenoiser):
            raise TypeError(
                f"verify: expected an OptimalDenoiser, whose r is known in float64, found {type(denoiser).__name__}; "
                f"allowed verify=False"
            )
        self._inner, self._along, self._tol = inner, AlongTrajectory(denoiser, conditions), denoiser.tol

    @property
    def costs(self) -> list[Cost]:
        return self._inner.costs

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        denoised = self._inner(x, sigma)
        self.count += 1
        breach = self._along.breach(x, sigma, denoised)
        if not breach <= 1:
            raise ArithmeticError(
                f"verify: expected |r - r64| <= {self._tol:g} max(|r64|, 0.01 max_i |x_i|) in evaluation {self.count}, "
                f"found {breach:.3g} times as much at sigma = {sigma:g}; please report it"
            )
        return denoised
