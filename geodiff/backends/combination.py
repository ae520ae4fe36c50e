"""gain r + sum_k c_k v_k: a solver's update with the r that it needs, as one call of a kernel writes it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor

from geodiff.base.dtypes import PRECISE

#: A factor and what it multiplies.
Term = tuple[float, Tensor]


class Combination(NamedTuple):
    """out = gain r + sum_k c_k v_k for terms (c_k, v_k), all [B, d]; out may be the queries or one of the v_k."""

    gain: float
    terms: Sequence[Term]
    out: Tensor

    @contextmanager
    def picked(self, chosen: Tensor) -> Iterator["Combination"]:
        """The same for the chosen queries alone."""
        here = Combination(self.gain, [(factor, values[chosen]) for factor, values in self.terms], self.out[chosen])
        yield here
        self.out[chosen] = here.out

    def write(self, mean: Tensor) -> None:
        """Writes `out`, given r in float64, which is used up."""
        mean.mul_(self.gain)
        for factor, values in self.terms:
            mean.add_(values, alpha=factor)
        self.out.copy_(mean)

    def in_place(self, *others: Tensor) -> bool:
        """Whether a kernel can write it where all is: of one precision, on one device, row after row."""
        out = self.out
        return out.dtype in PRECISE and all(
            one.dtype == out.dtype and one.device == out.device and one.is_contiguous()
            for one in (out, *others, *(values for _, values in self.terms))
        )
