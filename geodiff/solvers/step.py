"""What a solver is: a function that takes one step."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor


class Evaluate(Protocol):
    """r(x; sigma): the denoiser as a step calls it, with sigma as a plain number, its output checked, in x's dtype."""

    def __call__(self, x: Tensor, sigma: float, /) -> Tensor: ...


class Visited(NamedTuple):
    """A level that the solver has left behind: the state x [B, *shape] there, and r(x; sigma). Views, not copies."""

    sigma: float
    x: Tensor
    denoised: Tensor


class Step(Protocol):
    """One step of a solver, from sigma to sigma_next < sigma: returns the next x, [B, *shape], and leaves x as it is.

    denoised is r(x; sigma), already evaluated; `denoiser` gives r elsewhere. sigma_next may be 0, where the right side
    of the ODE is not defined: a step must not evaluate the denoiser there. Levels are Python floats, which are float64.
    history  the levels before sigma, the latest last: what multistep methods extrapolate from
    out      [B, *shape], overlapping nothing: a step may build the next x there and return it, so that nothing more is
             allocated. None: make a tensor, as one does who differentiates through the step.
    """

    def __call__(
        self,
        denoiser: Evaluate,
        x: Tensor,
        sigma: float,
        sigma_next: float,
        denoised: Tensor,
        history: Sequence[Visited] = (),
        out: Tensor | None = None,
        /,
    ) -> Tensor: ...
