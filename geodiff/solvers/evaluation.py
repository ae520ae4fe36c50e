"""What a solver's step is made of: evaluations of r, and linear combinations of what is known.

Everything that a step builds goes through `combine` and `blend`, so that whoever runs it decides how: in a new tensor
that autograd can follow, where the next state is kept, or in the kernel that evaluates r.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from geodiff.backends.combination import Term
from geodiff.backends.cost import Cost


class Evaluate(Protocol):
    """r(x; sigma): the denoiser as a step calls it, with sigma as a plain number, its output checked, in x's dtype."""

    def __call__(self, x: Tensor, sigma: float, /) -> Tensor: ...


class Level(NamedTuple):
    """Where the solver is, or has been: the state x [B, *shape] at sigma, and r(x; sigma). Views, not copies."""

    sigma: float
    x: Tensor
    denoised: Tensor


class Step(Protocol):
    """One step of a solver, from at.sigma to sigma_next below it: returns the next x, [B, *shape], and leaves x alone.

    at         where the step starts; `denoiser` gives r elsewhere
    sigma_next may be 0, where the right side of the ODE is not defined: a step must not evaluate the denoiser there
    history    the levels before, the latest last: what multistep methods extrapolate from

    Noise levels are Python floats, which are float64. A step that builds the next x by `blend` and `combine` allocates
    nothing; one that does not may return any tensor.
    """

    def __call__(
        self, denoiser: Evaluate, at: Level, sigma_next: float, history: Sequence[Level] = (), /
    ) -> Tensor: ...


class Evaluator(ABC):
    """A denoiser as the loop over the levels runs it.

    place  [B, *shape], overlapping nothing that a step is given: where it builds the next state. None: a new tensor
    count  evaluations so far
    """

    place: Tensor | None = None
    count = 0

    @property
    def costs(self) -> list[Cost]:
        """What each evaluation took, where that is known."""
        return []

    @abstractmethod
    def __call__(self, x: Tensor, sigma: float, /) -> Tensor: ...

    def combine(self, x: Tensor, sigma: float, gain: float, terms: Sequence[Term], out: Tensor | None) -> Tensor:
        """gain r(x; sigma) + sum_k c_k v_k, in `out`, which may be x or one of the v_k; None: in a new tensor."""
        return _sum(_with(self(x, sigma), gain, x, terms), out)


def combine(denoiser: Evaluate, x: Tensor, sigma: float, gain: float, terms: Sequence[Term]) -> Tensor:
    """gain r(x; sigma) + sum_k c_k v_k for terms (c_k, v_k), all [B, *shape]: where the next state is built."""
    if isinstance(denoiser, Evaluator):
        return denoiser.combine(x, sigma, gain, terms, denoiser.place)
    return _sum(_with(denoiser(x, sigma), gain, x, terms), None)


def blend(denoiser: Evaluate, terms: Sequence[Term]) -> Tensor:
    """sum_k c_k v_k for one or more terms (c_k, v_k), all [B, *shape]: where the next state is built."""
    return _sum(terms, denoiser.place if isinstance(denoiser, Evaluator) else None)


def _with(denoised: Tensor, gain: float, x: Tensor, terms: Sequence[Term]) -> list[Term]:
    """The terms and gain r: x first, as where the sum is built in its place, so that both round alike."""
    first = [term for term in terms if term[1] is x]
    return [*first, (gain, denoised), *(term for term in terms if term[1] is not x)]


def _sum(terms: Sequence[Term], out: Tensor | None) -> Tensor:
    """sum_k c_k v_k; without `out` by operations that autograd can follow, which round alike."""
    if out is not None:
        # What stands in `out` comes first, whole: a denoiser may answer with its own input.
        there = sum(factor for factor, values in terms if values is out)
        rest = [term for term in terms if term[1] is not out]
        terms = [(there, out), *rest] if len(rest) < len(terms) else rest
    (factor, values), *rest = terms
    total = values if values is out and factor == 1 else torch.mul(values, factor, out=out)
    for factor, values in rest:
        total = torch.add(total, values, alpha=factor, out=out)
    return total
