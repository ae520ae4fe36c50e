"""gain r + sum_k c_k v_k: an evaluation and the update that needs it, which one kernel can do at once."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from geodiff.backends.engine import Term
from geodiff.solvers.step import Evaluate


class Combining(ABC):
    """A denoiser as a step calls it that also writes what `combine` asks for, without keeping r."""

    @abstractmethod
    def __call__(self, x: Tensor, sigma: float, /) -> Tensor: ...

    @abstractmethod
    def combine(self, x: Tensor, sigma: float, gain: float, terms: Sequence[Term], out: Tensor) -> Tensor:
        """As the function `combine`."""


def combine(
    denoiser: Evaluate, x: Tensor, sigma: float, gain: float, terms: Sequence[Term], out: Tensor | None = None
) -> Tensor:
    """gain r(x; sigma) + sum_k c_k v_k for terms (c_k, v_k), all [B, *shape]; gain is not 0.

    out  where to build it, and what is then returned; it may be x. None: a new tensor, by operations that autograd can
         follow and that round alike.
    """
    if out is not None and isinstance(denoiser, Combining):
        return denoiser.combine(x, sigma, gain, terms, out)
    denoised = denoiser(x, sigma)
    if not terms:
        return torch.mul(denoised, gain, out=out)
    # Where x is `out`, it has to come first; and so does r, from a denoiser that answers with its own input.
    (factor, values), *rest = sorted(terms, key=lambda term: term[1] is not x)
    if factor == 1:
        total = torch.add(values, denoised, alpha=gain, out=out)
    else:
        total = torch.mul(torch.add(denoised, values, alpha=factor / gain, out=out), gain, out=out)
    for factor, values in rest:
        total = torch.add(total, values, alpha=factor, out=out)
    return total
