"""The optimal denoiser as a solver asks it along a trajectory: without a user's checks, and saying what it took."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from geodiff.backends.combination import Combination, Term
from geodiff.backends.cost import Cost
from geodiff.backends.query import FLOAT64
from geodiff.denoiser.conditioning import Batch
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.denoiser.operators import recorded
from geodiff.denoiser.trajectory_memory import Memories
from geodiff.reference.contract import largest_error

_CONDITIONS = ("class_labels", "mask", "exclude")


class AlongTrajectory:
    """Evaluations of one denoiser under the same class_labels, mask and exclude, as its `forward` takes them."""

    def __init__(self, denoiser: OptimalDenoiser, conditions: Mapping[str, Any]) -> None:
        unknown = [name for name in conditions if name not in _CONDITIONS]
        if unknown:
            raise TypeError(
                f"conditions: expected keyword arguments of the denoiser, found {unknown[0]!r:.60}; "
                f"allowed {', '.join(_CONDITIONS)}"
            )
        # Taken as they are now: what is remembered holds for these alone.
        self._denoiser, self._conditions = denoiser, copy.deepcopy(dict(conditions))
        self._memories = Memories()

    def combine(self, x: Tensor, sigma: float, gain: float, terms: Sequence[Term], out: Tensor) -> Cost:
        """out = gain r*(x; sigma) + sum_k c_k v_k as `OptimalDenoiser.combine`, all [B, *shape] in the dtype of x."""
        batch = self._batch(x, sigma)
        if recorded(x, batch.sigma):  # torch.func and modes see tensors that have no address
            self._denoiser.combine(x, x.new_tensor(sigma), gain, terms, out=out, **self._conditions)
            return Cost({"denoiser": x.shape[0]}, sigma=sigma)
        points = self._denoiser._points
        with points.stored.flat(Combination(gain, terms, out)) as flat:
            return points.combine(batch, flat, self._memories)._replace(sigma=sigma)

    def forget(self) -> None:
        """Evaluates from now on as if nothing had been evaluated before."""
        self._memories = Memories()

    @torch.no_grad()
    def breach(self, x: Tensor, sigma: float, denoised: Tensor) -> float:
        """max_b |r - r64| / (tol max(|r64|, 0.01 max_i |x_i|)), r64 from all data in float64: contract 1 allows 1."""
        points, stored = self._denoiser._points, self._denoiser._stored
        exact = points.posterior(self._batch(x, sigma).within(FLOAT64)).mean
        return largest_error(stored.flatten(denoised), exact, points.reach) / self._denoiser.tol

    def _batch(self, x: Tensor, sigma: float) -> Batch:
        asked = {"class_labels": None, **self._conditions}
        return self._denoiser._batch(x.detach(), x.new_tensor(sigma), **asked)
