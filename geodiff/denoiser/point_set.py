"""The data set made ready for queries, and its answers: over classes, masks, prior weights, and mirrored or not.

Everything here is flat: queries [B, d] in storage order, answers in float64, and nothing recorded for autograd.
`geodiff.denoiser.operators` turns it into torch operators.
"""

from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from geodiff.backends import Engine, Engines, Query
from geodiff.backends.combination import Combination
from geodiff.backends.cost import Cost
from geodiff.backends.query import FLOAT64, Direction
from geodiff.base.arguments import check_finite, check_levels
from geodiff.base.posterior import Bounds, Posterior
from geodiff.denoiser import content, merging
from geodiff.denoiser.conditioning import Batch, Conditioning, SameRows
from geodiff.denoiser.content import Content
from geodiff.denoiser.merging import ALONE, Allowed, Part, Ranks
from geodiff.denoiser.mirroring import Mirror
from geodiff.denoiser.storage import StoredRows
from geodiff.denoiser.trajectory_memory import Memories
from geodiff.reference.contract import LOG_TOL, least_scale

#: What an operator returns of a posterior, in this order.
FIELDS = ("mean", "log_prob", "entropy", "ess", "trace", "indices", "weights")


class PointSet:
    """Rows, what may be asked of them, their mirror image if it counts, and the engines over them.

    conditioning  rows, classes and prior weights
    mirror        None: no augmentation
    backend       as `OptimalDenoiser` takes it; raises as `backends.choose` does. Engines are opened when first wanted
    """

    #: those that hold the rows
    ranks: Ranks = ALONE
    #: the number of the first row here among all
    first = 0

    def __init__(self, conditioning: Conditioning, mirror: Mirror | None, backend: str) -> None:
        self.conditioning, self.mirror, self._backend = conditioning, mirror, backend
        self._open()

    @classmethod
    def of(cls, content: Content) -> Self:
        """The points of that content; refuses data that will not do, as `OptimalDenoiser` does."""
        rows, order, groups, prior, flip, backend = content
        mirror = None if flip is None else Mirror(flip)
        return cls(Conditioning(StoredRows.of_rows(rows, order), groups, prior), mirror, backend)

    def _open(self) -> None:
        self.engines = Engines(self._backend, self.stored.rows)
        self._digest = (0, b"")
        content.register(self)

    @property
    def content(self) -> Content:
        """What it takes to make them again."""
        conditioning, flip = self.conditioning, None if self.mirror is None else self.mirror.flip
        stored = conditioning.stored
        return Content(stored.rows, stored.order, conditioning.groups, conditioning.log_prior, flip, self._backend)

    def digest(self) -> bytes:
        """sha256 of the content: the same for the same values in any process. Taken once, and when they change."""
        self.engines.check()
        changes, known = self._digest
        if changes != self.engines.changes or not known:
            self._digest = (self.engines.changes, self.content.digest())
        return self._digest[1]

    @property
    def stored(self) -> StoredRows:
        """The rows, in storage order."""
        return self.conditioning.stored

    @property
    def n(self) -> int:
        """N: how many points there are, copies not counted."""
        return self.stored.n

    def check_all_here(self, what: str) -> None:
        """Raises TypeError, for what must see each row, where some of the rows lie elsewhere: here none do."""

    @property
    def mean(self) -> Tensor:
        """sum_i x_i / N over points and copies, [d] float64."""
        mean = self.engines.serving().mean
        return mean if self.mirror is None else self.mirror.mean(mean)

    @property
    def reach(self) -> float:
        """max_i |x_i|, in model space: what contracts measure small answers against."""
        return self.engines.serving().reach

    # ---- answers ----

    def posterior(self, batch: Batch, topk: int = 0, *, with_trace: bool = False) -> Posterior:
        """The posterior, every field flat and float64; the trace is NaN unless asked for.

        Raises ValueError for values that are not allowed: NaN in x, sigma <= 0, a class or mask without points.
        """
        check_finite(batch.x, "x")
        check_levels(batch.sigma)
        answers = []
        for part in self.conditioning.parts(batch):
            answers.append((part, self._posterior(part.query, topk, with_trace=with_trace)))
        return _joined(answers, batch.x.shape[0])

    def combine(self, batch: Batch, into: Combination, memories: Memories | None = None) -> Cost:
        """Writes `into`, r being the mean of `posterior`, and says what it took; raises as that does.

        memories: of earlier calls for the same queries, as they were then, under the same conditions
        Where all queries see the same rows, nothing of the size of x is allocated.
        """
        if self.mirror is not None:
            into.write(self.posterior(batch).mean)
            return Cost({"merged": batch.x.shape[0]})
        costs = []
        for part in list(self.conditioning.parts(batch)):  # all are checked before anything is written
            engine = self.engines.serving(part.query.x.shape[0])
            if not (engine.checks_queries and part.chosen is None):
                check_levels(batch.sigma)
                check_finite(batch.x, "x")
            memory = None if memories is None else memories.of(engine, part.query)
            query = self._for(engine, part.query)
            if part.chosen is None:  # all of them, and there is no other part
                return engine.combine(query, into, memory)
            with into.picked(part.chosen) as here:
                costs.append(engine.combine(query, here, memory))
        return Cost.total(costs)

    def unchecked(self, x: Tensor, sigma: Tensor, tol: float, into: Combination) -> None:
        """`combine` over all rows; nothing is checked and mirroring is left out."""
        query = Query(x, sigma, range(self.stored.n), self.conditioning.log_prior, tol)
        self.engines.serving(x.shape[0]).combine(query, into)

    def covariance(self, batch: Batch, direction: Direction) -> tuple[Tensor, Tensor]:
        """`Engine.covariance` under the same conditions as `posterior`, whose mean is the direction's."""
        rows, far = torch.empty_like(batch.x, dtype=torch.float64), batch.sigma.new_empty(batch.x.shape[0])
        for part in self.conditioning.parts(batch):
            along = Direction(*part.pick(direction.mean, direction.v, direction.slope))
            found = self._covariance(part.query, along)
            chosen = slice(None) if part.chosen is None else part.chosen
            rows[chosen], far[chosen] = found[0].to(rows.device), found[1].to(far.device)
        return rows, far

    def draw(self, batch: Batch, uniform: Tensor) -> Tensor:
        """Indices [B, n] in the order of the data passed in, by inverting the weights' distribution at `uniform`."""
        out = torch.empty(uniform.shape, dtype=torch.int64, device="cpu")
        for part in self.conditioning.parts(batch):
            found = self._draw(part.query, *part.pick(uniform))
            out[slice(None) if part.chosen is None else part.chosen.cpu()] = found.cpu()
        return out

    # ---- one engine's query ----

    def _posterior(self, query: Query, topk: int, *, with_trace: bool) -> Posterior:
        if self.mirror is not None:

            def ask(which: Tensor | None, tol: float, log_tol: float) -> Part:
                asked = replace(query if which is None else query.picked(which), tol=tol, log_tol=log_tol)
                return self._halves(asked, topk, with_trace=with_trace)

            return merging.answer(self.ranks, ask, Allowed(query.tol, LOG_TOL, least_scale(self.reach)))
        engine = self.engines.serving(len(query))
        query = self._for(engine, query)
        answer = _named_by(engine, query, topk)
        trace = self._trace(engine, query, answer, wanted=with_trace)
        return replace(answer, trace=trace, indices=self._named(answer.indices[None])[0])

    def _covariance(self, query: Query, direction: Direction) -> tuple[Tensor, Tensor]:
        if self.mirror is None:
            engine = self.engines.serving(len(query))
            return engine.covariance(self._for(engine, query), direction)
        part = self._halves(replace(query, log_tol=TOL_OF_SHARES), 0, with_trace=True)
        found = self._covariances(query, Direction(part.answer.mean, direction.v, direction.slope))
        return merging.covariance(self.ranks, part, direction, found)

    def _draw(self, query: Query, uniform: Tensor) -> Tensor:
        if self.mirror is None:
            engine = self.engines.serving(len(query))
            return self._named(engine.draw(self._for(engine, query), uniform)[None])[0]
        part = self._halves(replace(query, tol=TOL_OF_SHARES, log_tol=TOL_OF_SHARES), 0, with_trace=False)
        mine, rest = merging.dealt(self.ranks, part, uniform.to(part.mass.device))
        return torch.where(mine, self._draws(query, rest).to(mine.device), 0).sum(0)

    # ---- the rows here and, where they count, their mirror images: P = 1 or 2 parts, as `merging` joins them ----

    def _halves(self, query: Query, topk: int, *, with_trace: bool) -> Part:
        """What points and copies here have to say to a query, each of the mass 1."""
        both, engine = self._with_mirror_images(query)
        if both.log_tol < LOG_TOL and not engine.bounds_errors:
            both = replace(both, tol=FLOAT64)
        answer = _named_by(engine, both, topk)
        logits = _logits(engine, both, answer.indices)
        bounds = engine.bounds(both, answer)
        mean = answer.mean if self.mirror is None else self.mirror.back(answer.mean)
        trace = self._trace(engine, both, answer, wanted=with_trace)
        numbers = (answer.log_prob, answer.entropy, answer.ess, trace, *bounds)
        log_prob, entropy, ess, trace, *off = (self._in_parts(one) for one in numbers)
        indices, weights = self._named(self._in_parts(answer.indices)), self._in_parts(answer.weights)
        whole = Posterior(self._in_parts(mean), log_prob, entropy, ess, indices, weights, trace, bounds=Bounds(*off))
        return Part(query.x, torch.zeros_like(log_prob), whole, self._in_parts(logits))

    def _covariances(self, query: Query, direction: Direction) -> tuple[Tensor, Tensor]:
        """`Engine.covariance` of points and of copies, [P, B, d] and [P, B]; direction.mean [P, B, d] is theirs."""
        both, engine = self._with_mirror_images(query)
        mean = direction.mean.flatten(0, 1)
        if self.mirror is None:
            along = Direction(mean, direction.v, direction.slope)
        else:
            along = Direction(self.mirror.back(mean), self.mirror.twice(direction.v), direction.slope.repeat(2))
        rows, far = engine.covariance(both, along)
        rows = rows if self.mirror is None else self.mirror.back(rows.to(mean.device))
        return self._in_parts(rows), self._in_parts(far)

    def _draws(self, query: Query, uniform: Tensor) -> Tensor:
        """Indices [P, B, n] of points and of copies, by numbers uniform [P, B, n] of each."""
        both, engine = self._with_mirror_images(query)
        return self._named(self._in_parts(engine.draw(both, uniform.flatten(0, 1))))

    def _in_parts(self, values: Tensor) -> Tensor:
        """[P B, ...] -> [P, B, ...]."""
        return values.unflatten(0, (1 if self.mirror is None else 2, -1))

    def _trace(self, engine: Engine, query: Query, answer: Posterior, *, wanted: bool) -> Tensor:
        # Only if asked for: some engines have to take another look at the rows, as expensive as the answer or more.
        return engine.trace(query, answer) if wanted else torch.full_like(answer.log_prob, torch.nan)

    def _with_mirror_images(self, query: Query) -> tuple[Query, Engine]:
        """The query, with its mirror images behind it where they count, and the engine for so many."""
        both = query if self.mirror is None else self.mirror.both(query)
        engine = self.engines.serving(len(both))
        return self._for(engine, both), engine

    def _for(self, engine: Engine, query: Query) -> Query:
        """The query in words that the engine knows."""
        return query if engine.excludes else query.with_exclude_as_prior(self.stored.n)

    def _named(self, rows: Tensor) -> Tensor:
        """Rows [P, B, k] to positions in the data as passed in; copies N further on, and -1 (no such point) stays."""
        known = self.stored.original(rows.clamp(min=0)) + self.first
        copies = self.n * torch.arange(len(rows), device=rows.device)[:, None, None]
        return torch.where(rows < 0, -1, known + copies)

    # ---- moving and copying ----

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        self.engines.check()
        mirror = None if self.mirror is None else self.mirror.to(device)
        return type(self)(self.conditioning.to(device), mirror, self._backend)

    def __getstate__(self) -> dict[str, Any]:
        self.engines.check()  # a copy of changed data would answer from other data than this
        # Engines hold addresses, and a digest is of this process's count of changes.
        state = {name: value for name, value in self.__dict__.items() if name not in ("engines", "_digest")}
        return {**state, "format": _FORMAT}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        found = state.pop("format", None)
        if found != _FORMAT:
            raise ValueError(
                f"state: expected a denoiser pickled in format {_FORMAT}, found {found}; allowed one of this version "
                f"of geodiff, or a new denoiser over the data"
            )
        self.__dict__.update(state)
        self._open()


#: Of pickles: changes whenever the attributes of what is pickled do.
_FORMAT = 2
#: Of the shares that parts of the data have of the weight, which draws and covariances go by.
TOL_OF_SHARES = 1e-6


def _joined(answers: list[tuple[SameRows, Posterior]], batch: int) -> Posterior:
    """The answers to parts of a batch, in the order of the batch."""
    if len(answers) == 1 and answers[0][0].chosen is None:
        return answers[0][1]

    def joined(name: str) -> Tensor:
        first: Tensor = getattr(answers[0][1], name)
        out = first.new_empty(batch, *first.shape[1:])
        for part, answer in answers:
            assert part.chosen is not None, "a batch is either one part or several of some queries each"
            out[part.chosen.to(out.device)] = getattr(answer, name)
        return out

    found: dict[str, Any] = {name: joined(name) for name in FIELDS}
    return Posterior(**found)


def _named_by(engine: Engine, query: Query, topk: int) -> Posterior:
    """The engine's posterior with `topk` rows named; beyond those that are seen -1, of weight 0."""
    answer = engine.posterior(query, min(topk, len(query.rows)))
    missing = (0, topk - answer.indices.shape[1])
    if missing[1] == 0:
        return answer
    indices, weights = pad(answer.indices, missing, value=-1), pad(answer.weights, missing)
    return replace(answer, indices=indices, weights=weights)


def _logits(engine: Engine, query: Query, indices: Tensor) -> Tensor:
    """log pi_i - |x - x_i|^2 / 2 sigma^2 of the listed rows, [B, k] float64, on the device of x; -inf for index -1."""
    device = query.x.device
    if not indices.shape[1]:
        return torch.empty(indices.shape, dtype=torch.float64, device=device)
    far = engine.squared_distances(query.x, indices).to(device)
    logits = -far / (2 * query.sigma.to(device).square())[:, None]
    mass = query.log_mass
    logits = logits - (mass.to(device)[:, None] if isinstance(mass, Tensor) else mass)
    if query.log_prior is None:
        return logits
    prior = query.log_prior.to(device).expand(len(query), -1)
    return logits + prior.gather(1, indices.to(device).clamp(min=0))
