"""What a solver is: a function that takes one step."""

from typing import Protocol

from torch import Tensor


class Evaluate(Protocol):
    """r(x; sigma): the denoiser as a step calls it, with sigma as a plain number, its output checked, in x's dtype."""

    def __call__(self, x: Tensor, sigma: float, /) -> Tensor: ...


class Step(Protocol):
    """One step of a solver, from sigma to sigma_next < sigma: returns the next x, [B, *shape], and leaves x as it is.

    denoised is r(x; sigma), already evaluated; `denoiser` gives r elsewhere. sigma_next may be 0, where the right side
    of the ODE is not defined: a step must not evaluate the denoiser there. Levels are Python floats, which are float64.
    """

    def __call__(
        self, denoiser: Evaluate, x: Tensor, sigma: float, sigma_next: float, denoised: Tensor, /
    ) -> Tensor: ...
