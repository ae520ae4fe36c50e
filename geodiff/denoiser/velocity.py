"""The optimal velocity of flow matching, to a contract of its own: |v - v64| <= tol max(|v64|, 0.01 max_i |x_i|).

v = alpha' r + sigma' (x - alpha r) / sigma is linear in r with the factor c = alpha' - alpha sigma' / sigma, -1/t on
the linear path, which is large near the data. There r must be known better than contract 1 asks for: to tol / |c|. It
can be: so little noise leaves few points with weight, and those are summed up in float64. The difference x - alpha r
is taken in float64 as well, from an r that was not rounded, so that nothing cancels.

At the noise end x / alpha and sigma / alpha grow without bound, and the logits <x, x_i> alpha / sigma^2 - ... vanish.
Only their ratio counts there, so both stop at the level LARGEST: what is left out is of the order of 1 / LARGEST.
"""

import torch
from torch import Tensor

from geodiff.base.arguments import SIGMA_MAX, SIGMA_MIN
from geodiff.denoiser.answered import Answered
from geodiff.denoiser.conditioning import Batch
from geodiff.denoiser.operators import recorded
from geodiff.denoiser.point_set import PointSet
from geodiff.paths import Path, Scales

#: The level that stands for pure noise.
LARGEST = SIGMA_MAX
#: Up to this level few points carry weight, so that a tight tolerance costs next to nothing.
_FEW = 1.0
_FLOOR = 0.01  # of max_i |x_i|: contract 1
_LEAST = 1e-15  # of a tolerance: beyond float64 there is nothing to ask for


def scales_of(path: Path, t: Tensor) -> Scales:
    """The scales at t [B], once they are known to give a velocity; ValueError where they do not."""
    found = path.at(t)
    usable = torch.stack([scale.isfinite() for scale in found]).all(0) & (found.level >= SIGMA_MIN)
    if not bool(usable.all()):
        raise ValueError(
            f"t: expected a time at which {path.name} has a velocity, found {t[~usable][0].item():g}; "
            f"allowed within 0 .. 1, not the end where the data are, t = {path.data_end:g}, "
            f"and no end at which alpha or sigma has an infinite slope"
        )
    return found


def towards_data(x: Tensor, scales: Scales) -> tuple[Tensor, Tensor]:
    """y [B, d] and its noise level [B], float64: x_t in the coordinates of the denoiser, x [B, d]."""
    level = scales.level.clamp(max=LARGEST)
    return x.double() * (level / scales.sigma)[:, None], level


def velocity(x: Tensor, scales: Scales, batch: Batch, points: PointSet) -> Tensor:
    """v [B, d] float64 for x [B, d]; `batch` asks at `towards_data` of them, with the tolerance that v is to have."""
    with torch.no_grad():
        r, tol = _to_contract(x.detach(), scales, batch.at(batch.x.detach(), batch.sigma.detach()), points)
    if recorded(batch.x, batch.sigma):
        r = Answered.to(batch._replace(tol=tol), points).answer["mean"]
    return scales.velocity(x, r)


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
                r[chosen] = points.posterior(batch.part(chosen)._replace(tol=float(asked[chosen[0]]))).mean
        # |v - v64| <= |c| |r - r64|, and as much may |v64| be below |v|.
        unit = factor * r.norm(dim=1).clamp(min=floor)
        speed = (scales.velocity(x, r).norm(dim=1) - unit * asked).clamp(min=floor)
        needed = batch.tol * speed / unit
        waiting = ((asked > needed) & (asked > _LEAST)).nonzero()[:, 0]
        asked[waiting] = (0.9 * needed[waiting]).clamp(_LEAST)
    return r, least
