"""The data points nearest to queries: those of the largest logit where all weigh alike."""

import torch
from torch import Tensor

from geodiff.backends.query import Query
from geodiff.base.arguments import check_finite
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.denoiser.point_set import PointSet
from geodiff.reference.formula import model_space

# At any sigma the heaviest points are the nearest ones; a moderate one keeps the kernel away from its limits.
_SIGMA = 0.1


@torch.no_grad()
def nearest_two(denoiser: OptimalDenoiser, x: Tensor) -> tuple[Tensor, Tensor]:
    """The two nearest data points of each query: positions in the data [B, k] int64, distances [B, k] float64, rising.

    k is 2, or 1 where there is one point only. Weights of points do not count, but points of weight 0 are left out: -1
    and infinity where nothing else is left. With augment="hflip" a point is as near as the nearer of it and its mirror
    image.
    """
    batch = denoiser._batch(x, 1.0, None)
    check_finite(batch.x, "x")
    points = denoiser._points
    if points.mirror is None:
        rows, distances = _heaviest(denoiser, batch.x)
    else:
        both = torch.cat([batch.x, batch.x[:, points.mirror.flip]])
        found = [one.unflatten(0, (2, -1)) for one in _heaviest(denoiser, both)]
        rows, distances = (torch.cat([*one], 1) for one in found)
        distances, order = distances.sort(dim=1, stable=True)
        rows = rows.gather(1, order)
        other = (rows != rows[:, :1]).int()  # the second nearest is another point, not the mirror image of the nearest
        second = other.argmax(1, keepdim=True)
        count = min(2, points.stored.n)
        rows, distances = (torch.cat([v[:, :1], v.gather(1, second)], 1)[:, :count] for v in (rows, distances))
    rows = torch.where(rows < 0, -1, points.stored.original(rows.clamp(min=0)) + points.first)
    return _of_all(points, rows, distances)


def _of_all(points: PointSet, rows: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest two of all ranks, from those of each; a rank may hold one point only."""
    if points.ranks.size == 1:
        return rows, distances
    missing = (0, 2 - rows.shape[1])
    mine = (
        torch.nn.functional.pad(rows, missing, value=-1),
        torch.nn.functional.pad(distances, missing, value=torch.inf),
    )
    found = points.ranks.gathered(torch.stack([mine[0].double(), mine[1]]))  # [K, 2, B, 2]; rows are exact: below 2^53
    rows, distances = found.movedim(0, 2).flatten(2)  # [B, 2 K], lower rows first
    distances, order = distances.sort(dim=1, stable=True)
    count = min(2, points.n)
    return rows.gather(1, order).long()[:, :count], distances[:, :count]


def _heaviest(denoiser: OptimalDenoiser, x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [B, k] and their distances, for queries [B, d]."""
    points = denoiser._points
    n, prior = points.stored.n, points.conditioning.log_prior
    if prior is not None:
        if bool(prior.isneginf().all()):  # of a rank whose rows have no weight
            none = (len(x), min(2, n))
            return torch.full(none, -1, device=x.device), torch.full(none, torch.inf, device=x.device).double()
        prior = torch.zeros_like(prior).masked_fill(prior.isinf(), -torch.inf).log_softmax(0)
    sigma = torch.full((len(x),), _SIGMA, dtype=torch.float64, device=x.device)
    engine = points.engines.serving(len(x))
    rows = engine.posterior(Query(x, sigma, range(n), prior, denoiser.tol), min(2, n)).indices.to(x.device)
    stored = points.stored.rows[rows.clamp(min=0).flatten().to(points.stored.rows.device)]
    there = model_space(stored, torch.float64).to(x.device).reshape(*rows.shape, x.shape[1])
    distances = (x.double()[:, None] - there).norm(dim=2).masked_fill(rows < 0, torch.inf)
    distances, order = distances.sort(dim=1, stable=True)
    return rows.gather(1, order), distances
