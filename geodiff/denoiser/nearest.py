"""The data points nearest to queries: those of the largest logit where all weigh alike.

At any sigma the heaviest points are the nearest ones, but only in exact arithmetic: engines are asked for float64, so
that rows are told apart by their differences to the query, and at a sigma small beside the spread of the data, where
few rows matter and a certain bound leaves out the others. How small is a guess; it costs time only.
"""

import torch
from torch import Tensor

from geodiff.backends.engine import Engine
from geodiff.backends.query import FLOAT64, Query
from geodiff.base.arguments import SIGMA_MAX, SIGMA_MIN, check_finite
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.denoiser.point_set import PointSet
from geodiff.reference.formula import model_space

_SHARE = 0.2  # sigma beside the spread of the data: 0.1 for pictures
_ROWS = 256  # to tell the spread by
_ROUNDING = 1e-12  # of the values: a smaller spread is none, since no dtype of stored data holds it
_PAIRS = 2**20  # at a time


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
    return _of_ranks(points, rows, distances)


def _of_ranks(points: PointSet, rows: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
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
    # As far as the nearest of n points are apart in d dimensions, which matters where these are few.
    sigma = _SHARE * _spread(points.stored.rows) * n ** (-1 / x.shape[1])
    engine = points.engines.serving(len(x))
    if SIGMA_MIN <= sigma <= SIGMA_MAX:
        levels = torch.full((len(x),), sigma, dtype=torch.float64, device=x.device)
        rows = engine.posterior(Query(x, levels, range(n), prior, FLOAT64), min(2, n)).indices.to(x.device)
    else:
        rows = _of_all(engine, x, None if prior is None else prior.isneginf())
    stored = points.stored.rows[rows.clamp(min=0).flatten().to(points.stored.rows.device)]
    there = model_space(stored, torch.float64).to(x.device).reshape(*rows.shape, x.shape[1])
    distances = (x.double()[:, None] - there).norm(dim=2).masked_fill(rows < 0, torch.inf)
    distances, order = distances.sort(dim=1, stable=True)
    return rows.gather(1, order), distances


def _of_all(engine: Engine, x: Tensor, left_out: Tensor | None) -> Tensor:
    """The same rows from all distances, for data so small or large that no engine takes a sigma like them."""
    n = len(engine.rows)
    rows, distances = x.new_empty(len(x), 0, dtype=torch.int64), x.new_empty(len(x), 0, dtype=torch.float64)
    for part in torch.arange(n, device=x.device).split(max(2, _PAIRS // max(1, len(x)))):
        these = part if left_out is None else torch.where(left_out[part.to(left_out.device)].to(x.device), -1, part)
        these = these.expand(len(x), -1)
        rows = torch.cat([rows, these], 1)
        distances = torch.cat([distances, engine.squared_distances(x, these).to(x.device)], 1)
        distances, order = distances.sort(dim=1, stable=True)
        distances, rows = distances[:, :2], rows.gather(1, order)[:, :2]
    return rows


def _spread(rows: Tensor) -> float:
    """How far numbers of the data are from their mean, of rows [N, d] evenly spread over them: above 0."""
    some = torch.linspace(0, len(rows) - 1, min(len(rows), _ROWS), device="cpu").round().long()
    found = model_space(rows[some.to(rows.device)], torch.float64)
    squares = (found - found.mean(0)).square().mean(1)
    # The median: a few outliers say nothing about the rest. Where most rows are alike, those few are what differs.
    spreads = (float(squares.median().sqrt()), float(squares.mean().sqrt()))
    return next((spread for spread in spreads if spread > _ROUNDING * float(found.abs().max())), 1.0)
