"""The optimal velocity of flow matching, to a contract of its own: |v - v64| <= tol max(|v64|, 0.01 max_i |x_i|).

v = alpha' r + sigma' (x - alpha r) / sigma is linear in r with the factor c = alpha' - alpha sigma' / sigma, -1/t on
the linear path, which is large near the data. There r must be known better than contract 1 asks for: to tol / |c|. It
can be: so little noise leaves few points with weight, and those are summed up in float64. The difference x - alpha r
is taken in float64 as well, from an r that was not rounded, so that nothing cancels.

At the noise end x / alpha and sigma / alpha grow without bound, and the logits <x, x_i> alpha / sigma^2 - ... vanish.
Only their ratio counts there, so both stop at the level LARGEST: what is left out is of the order of 1 / LARGEST.

How exact r must be is read off |v|. A graph cannot do that, so an operator does, `geodiff::velocity_mean`: it answers
with r and with the tolerance that it was asked for, at which autograd asks the posterior again.
"""

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from geodiff.base.arguments import SIGMA_MAX, SIGMA_MIN
from geodiff.base.tracing import values_are_known
from geodiff.denoiser.batch_answer import BatchAnswer
from geodiff.denoiser.conditioning import Batch
from geodiff.denoiser.operators import ASKED, PER_QUERY, QUESTION, Question, fold, followed, library, recorded
from geodiff.denoiser.point_set import PointSet
from geodiff.paths import Path, Scales, check_path

#: The level that stands for pure noise.
LARGEST = SIGMA_MAX
#: Up to this level few points carry weight, so that a tight tolerance costs next to nothing.
_FEW = 1.0
_FLOOR = 0.01  # of max_i |x_i|: contract 1
_LEAST = 1e-15  # of a tolerance: beyond float64 there is nothing to ask for


class Moment(NamedTuple):
    """Times [B] on a path, and its scales there.

    name, end  what the path is called, and its time where the data are
    """

    t: Tensor
    scales: Scales
    name: str
    end: float

    @classmethod
    def of(cls, path: Path, t: Tensor) -> Self:
        """ValueError where the path has no velocity; where values are not known, when the posterior is asked."""
        path = check_path(path)
        found = cls(t, path.at(t), path.name, path.data_end)
        if values_are_known():
            found.check()
        return found

    def check(self) -> None:
        """Raises ValueError for times at which the path has no velocity."""
        usable = torch.stack([scale.isfinite() for scale in self.scales]).all(0) & (self.scales.level >= SIGMA_MIN)
        usable &= (self.t >= 0) & (self.t <= 1)  # some paths have scales beyond
        if not bool(usable.all()):
            raise ValueError(
                f"t: expected a time at which {self.name} has a velocity, found {self.t[~usable][0].item():g}; "
                f"allowed within 0 .. 1, not the end where the data are, t = {self.end:g}, "
                f"and no end at which alpha or sigma has an infinite slope"
            )

    def towards_data(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y [B, d] and its noise level [B], float64: x_t in the coordinates of the denoiser, x [B, d]."""
        factor, level = self.scales.to_denoiser(LARGEST)
        return x.double() * factor[:, None], level


def velocity(x: Tensor, moment: Moment, batch: Batch, points: PointSet) -> Tensor:
    """v [B, d] float64 for x [B, d]; `batch` asks at `towards_data` of them, with the tolerance that v is to have."""
    scales = moment.scales
    if not recorded(batch.x, batch.sigma):
        return scales.velocity(x, _to_contract(x, scales, batch, points)[0])
    asked = Question.of(batch.at(batch.x.detach(), batch.sigma.detach()), points)
    fixed = (one.detach() for one in (x, moment.t, *scales))
    r, tol = torch.ops.geodiff.velocity_mean(*asked, *fixed, moment.name, moment.end)
    if followed(batch.x, batch.sigma):
        r = BatchAnswer.to(batch, points, finer=tol).answer["mean"]
    return scales.velocity(x, r)


def _mean(*args: Any) -> tuple[Tensor, Tensor]:
    asked, (x, t, *scales, name, end) = Question(*args[:ASKED]), args[ASKED:]
    moment = Moment(t, Scales(*scales), name, end)
    moment.check()
    r, tol = _to_contract(x, moment.scales, asked.batch(), asked.points)
    return r, x.new_full((), tol, dtype=torch.float64)


def _fake_mean(*args: Any) -> tuple[Tensor, Tensor]:
    x = args[ASKED]
    return x.new_empty(x.shape, dtype=torch.float64), x.new_empty((), dtype=torch.float64)


def _mean_of_each(info: Any, dims: tuple[int | None, ...], *args: Any) -> Any:
    """vmap: one batch of all; the tolerance is one for all."""
    places = [*PER_QUERY, *range(ASKED, ASKED + 2 + len(Scales._fields))]
    r, tol = torch.ops.geodiff.velocity_mean(*fold(info.batch_size, dims, args, places))
    return (r.unflatten(0, (info.batch_size, -1)), tol), (0, None)


_SCALES = "Tensor alpha, Tensor noise, Tensor d_alpha, Tensor d_noise"
library.define(f"velocity_mean({QUESTION}, Tensor at, Tensor t, {_SCALES}, str path, float end) -> (Tensor, Tensor)")
library.impl("velocity_mean", _mean, "CompositeExplicitAutograd")
torch.library.register_fake("geodiff::velocity_mean", _fake_mean, lib=library)
torch.library.register_vmap("geodiff::velocity_mean", _mean_of_each, lib=library)


def _to_contract(x: Tensor, scales: Scales, batch: Batch, points: PointSet) -> tuple[Tensor, float]:
    """r [B, d] float64 with which the velocity keeps its contract, and the least tolerance that it was asked for.

    How exact r must be depends on |v|, which only r tells: where many points carry weight, so that exactness costs
    time, r is asked for to contract 1 first, and a second time where that does not do. At high noise it does: there
    |c| is near 1, and |v| is as large as the noise and |r| is not.
    """
    factor, floor = scales.slope.detach().abs().to(x.device), _FLOOR * points.reach
    asked = torch.where(batch.sigma <= _FEW, batch.tol * _FLOOR / factor, batch.tol).clamp(_LEAST, batch.tol)
    r = torch.empty_like(x, dtype=torch.float64)
    waiting = torch.arange(len(x), device=x.device)
    least = batch.tol
    while len(waiting):
        for chosen in (waiting[asked[waiting] < batch.tol], waiting[asked[waiting] == batch.tol]):
            if len(chosen):
                asked[chosen] = asked[chosen].min()
                least = min(least, float(asked[chosen[0]]))
                r[chosen] = points.posterior(batch.part(chosen).within(float(asked[chosen[0]]))).mean
        # |v - v64| <= |c| |r - r64|, and as much may |v64| be below |v|.
        unit = factor * r.norm(dim=1).clamp(min=floor)
        speed = (scales.velocity(x, r).norm(dim=1) - unit * asked).clamp(min=floor)
        needed = batch.tol * speed / unit
        waiting = ((asked > needed) & (asked > _LEAST)).nonzero()[:, 0]
        asked[waiting] = (0.9 * needed[waiting]).clamp(_LEAST)
    return r, least
