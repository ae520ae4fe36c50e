"""What covariances and draws of an engine are held to: the float64 reference, under every way to see the rows."""

import torch
from torch import Tensor

from geodiff import reference
from geodiff.backends import Query
from geodiff.backends.engine import Engine
from geodiff.backends.query import Direction
from geodiff.base.posterior import Posterior
from geodiff.reference import moments

N, D, BATCH = 150, 9, 3
TOL = 1e-5
KINDS = ("all", "some rows", "prior", "own priors", "exclude", "both")


def some_data(stored: torch.dtype) -> Tensor:
    points = torch.rand(N, D) * 1.2 - 0.5
    points[N - 1] = points[0]
    return ((points + 1) * 127.5).round().to(torch.uint8) if stored == torch.uint8 else points.to(stored)


def asked(data: Tensor, sigma: float, kind: str) -> Query:
    """A batch of queries, the second of which leaves nothing out."""
    rows = range(3, N - 2) if kind == "some rows" else range(N)
    points = reference.model_space(data, torch.float64)
    x = points[torch.randint(N, (BATCH,))] + sigma * torch.randn(BATCH, D, dtype=torch.float64)
    prior = exclude = None
    if kind in ("prior", "both"):
        prior = torch.randn(N, dtype=torch.float64).log_softmax(0)
    if kind == "own priors":
        prior = torch.randn(BATCH, N, dtype=torch.float64)
        prior[1, ::2] = -torch.inf
        prior = prior.log_softmax(1)
    if kind in ("exclude", "both"):
        nearest = torch.cdist(x, points).argmin(1)
        exclude = torch.where(torch.arange(BATCH) == 1, -1, nearest)
    return Query(x, torch.full((BATCH,), sigma, dtype=torch.float64), rows, prior, TOL, exclude)


def check_posterior(engine: Engine, query: Query, data: Tensor, topk: int) -> None:
    """topk may be more than are left."""
    found = engine.posterior(query, topk)
    for b in range(len(query)):
        one = query.picked(torch.tensor([b]))
        expected = reference.posterior(one.x, one.seen(data), one.sigma, topk=topk, **_conditions(one))
        _same(found, expected, b, query.rows.start)


def _same(found: Posterior, expected: Posterior, b: int, start: int) -> None:
    allowed = {"mean": (TOL, 1e-6), "log_prob": (1e-6, 1e-3), "entropy": (1e-3, 1e-4), "ess": (1e-3, 0)}
    for name, (rtol, atol) in {**allowed, "weights": (1e-3, 1e-6)}.items():
        one = getattr(found, name)[b].cpu()
        torch.testing.assert_close(
            one, getattr(expected, name)[0], rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )
    weighty, indices = expected.weights[0] > 1e-12, found.indices[b].cpu()
    assert torch.equal(indices[weighty], expected.indices[0][weighty] + start)
    assert ((indices < 0) == (expected.indices[0] < 0)).all()


def check_covariance(engine: Engine, query: Query, data: Tensor) -> None:
    """With and without a slope, far closer than what is promised: engines of GPUs sum in float64 throughout."""
    v = torch.randn(query.x.shape, dtype=torch.float64)
    alone = [query.picked(torch.tensor([b])) for b in range(len(query))]
    means = [reference.posterior(one.x, one.seen(data), one.sigma, **_conditions(one)).mean for one in alone]
    for steep in (0.0, 0.5):
        slope = steep / query.sigma
        rows, far = (one.cpu() for one in engine.covariance(query, Direction(torch.cat(means), v, slope)))
        for b, one in enumerate(alone):
            along = moments.Along(v[b : b + 1], slope[b : b + 1])
            expected, crossed = moments.covariance(one.x, one.seen(data), one.sigma, along, **_conditions(one))
            sigma2 = float(one.sigma.square())
            scale = 0.01 * sigma2 * float(v[b].norm() + slope[b])
            assert float((rows[b] - expected[0]).norm()) <= 1e-6 * (scale + float(expected.norm()))
            allowed = 1e-6 * float(crossed.abs()) + 1e-9 * sigma2 * float((1 + slope[b]) * (1 + one.x.norm()))
            assert float((far[b] - crossed[0]).abs()) <= allowed


def check_draws(engine: Engine, query: Query, data: Tensor) -> None:
    uniform = torch.rand(len(query), 5, dtype=torch.float64)
    uniform[0, 0] = 0
    found = engine.draw(query, uniform).cpu()
    for b in range(len(query)):
        one = query.picked(torch.tensor([b]))
        wanted = moments.draw(one.x, one.seen(data), one.sigma, uniform[b : b + 1], **_conditions(one))
        assert torch.equal(found[b], wanted[0] + query.rows.start)


def _conditions(one: Query) -> dict[str, Tensor | None]:
    """Of a single query."""
    prior = one.prior_of_rows
    return {
        "log_weights": prior[0] if prior is not None and prior.ndim == 2 else prior,
        "exclude": one.excluded_of_rows,
    }
