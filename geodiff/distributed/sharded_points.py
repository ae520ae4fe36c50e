"""The data set of which this rank holds a part: what `PointSet` answers, of all ranks' rows.

Indices count through all ranks, in rank order; conditions (classes, mask, exclude) are those of the whole, and what
they say of the rows here is what the part is asked with. A query that sees nothing here is not asked at all.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn, Self

import torch
from torch import Tensor

from geodiff.backends.combination import Combination
from geodiff.backends.cost import Cost
from geodiff.backends.query import Direction
from geodiff.base.arguments import check_exclude, check_finite, check_levels
from geodiff.base.posterior import Bounds, Posterior
from geodiff.data.labels import check_requested_classes
from geodiff.denoiser import content, merging
from geodiff.denoiser.conditioning import Batch, SameRows
from geodiff.denoiser.content import Content
from geodiff.denoiser.merging import Allowed, Part
from geodiff.denoiser.point_set import TOL_OF_SHARES, PointSet
from geodiff.denoiser.trajectory_memory import Memories
from geodiff.distributed.ranks import Ranks
from geodiff.reference.contract import LOG_TOL, least_scale


class _Here(NamedTuple):
    """A batch as the rows here see it: its conditions told in their terms, and M_k [B], -inf where nothing is seen."""

    batch: Batch
    mass: Tensor


class ShardedPointSet(PointSet):
    """The rows of all ranks, this rank's being those of `local`.

    log_total: logsumexp of the log weights given for the rows here; log N_k where none were. Of -inf `local` has none
    """

    def __init__(self, local: PointSet, ranks: Ranks, log_total: float) -> None:
        # Not super().__init__: engines are open over the rows already.
        self.conditioning, self.mirror, self._backend = local.conditioning, local.mirror, local._backend
        self.engines, self._digest = local.engines, (0, b"")
        if log_total == -math.inf:  # those who look for near points and for weights are to find none here
            prior = torch.full((self.stored.n,), -torch.inf, dtype=torch.float64, device=self.stored.rows.device)
            self.conditioning = replace(self.conditioning, log_prior=prior)
        self._local, self._group, self._log_total = local, ranks, log_total
        self.ranks = ranks
        sizes = {label: len(rows) for label, rows in self.conditioning._ranges.items()}
        shape, stored = self.stored.shape, self.stored
        told = ranks.objects((stored.n, shape, sizes, local.reach, log_total))
        if all(one[4] == -math.inf for one in told):
            raise ValueError(
                "log_weights: expected a point of weight above 0 on some rank, found a maximum of -inf; "
                "allowed no NaN, no +inf, at least one above -inf"
            )
        for rank, (_, other, *_) in enumerate(told):
            if other != told[0][1]:
                raise ValueError(
                    f"part: expected points of one shape on all ranks, found {list(told[0][1])} on rank 0 and "
                    f"{list(other)} on rank {rank}; allowed parts of one data set"
                )
        counts = [one[0] for one in told]
        self.first, self._n = sum(counts[: ranks.rank]), sum(counts)
        self._sizes: dict[int, int] = {}
        for _, _, some, *_ in told:
            for label, count in some.items():
                self._sizes[label] = self._sizes.get(label, 0) + count
        self._reach = max(one[3] for one in told)
        self._mean = ranks.total(local.mean * stored.n) / self._n
        content.register(self)

    @property
    def content(self) -> Content:
        """As of the part, but no other process can make these points of it, and no other points in this one are it."""
        return super().content._replace(backend=f"rows on {self.ranks.size} ranks, number {id(self)}")

    @property
    def n(self) -> int:
        """N of all ranks."""
        return self._n

    @property
    def label_dim(self) -> int:
        """The largest class with points on any rank, plus 1; 0 without labels."""
        return max(self._sizes) + 1 if self._sizes else 0

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def reach(self) -> float:
        return self._reach

    def check_all_here(self, what: str) -> None:
        raise TypeError(
            f"denoiser: expected one whose rows all lie in this process for {what}, found a part of "
            f"{self.ranks.size}; allowed an OptimalDenoiser over all of the data"
        )

    # ---- answers ----

    def posterior(self, batch: Batch, topk: int = 0, *, with_trace: bool = False) -> Posterior:
        batch = self._checked(batch)
        here = self._here(batch)

        def ask(which: Tensor | None, tol: float, log_tol: float) -> Part:
            return self._part(here, which, tol, log_tol, topk, with_trace=with_trace)

        return merging.answer(self.ranks, ask, Allowed(batch.tol, LOG_TOL, least_scale(self.reach)))

    def combine(self, batch: Batch, into: Combination, memories: Memories | None = None) -> Cost:
        into.write(self.posterior(batch).mean)
        return Cost({"merged": batch.x.shape[0]})

    def unchecked(self, x: Tensor, sigma: Tensor, tol: float, into: Combination) -> None:
        self.combine(Batch(x, sigma, None, None, None, tol), into)

    def covariance(self, batch: Batch, direction: Direction) -> tuple[Tensor, Tensor]:
        batch = self._checked(batch)
        here = self._here(batch)
        part = self._part(here, None, batch.tol, TOL_OF_SHARES, 0, with_trace=True)
        rows, far = torch.zeros_like(part.answer.mean), torch.zeros_like(part.mass)
        for chosen, asked in self._asked(here, None):
            along = Direction(part.answer.mean[:, chosen], direction.v.double()[chosen], direction.slope[chosen])
            found = self._covariances(asked.query, along)
            rows[:, chosen], far[:, chosen] = found[0].to(rows.device), found[1].to(far.device)
        return merging.covariance(self.ranks, part, direction, (rows, far))

    def draw(self, batch: Batch, uniform: Tensor) -> Tensor:
        uniform = self._group.of_first(uniform)
        batch = self._checked(batch)
        here = self._here(batch)
        part = self._part(here, None, TOL_OF_SHARES, TOL_OF_SHARES, 0, with_trace=False)
        mine, rest = merging.dealt(self.ranks, part, uniform.to(part.mass.device))
        drawn = torch.zeros(mine.shape, dtype=torch.int64, device=mine.device)
        for chosen, asked in self._asked(here, None):
            drawn[:, chosen] = self._draws(asked.query, rest[:, chosen]).to(drawn.device)
        return self.ranks.total(torch.where(mine, drawn, 0).sum(0)).to(uniform.device)

    # ---- what the rows here are asked, and say ----

    def _checked(self, batch: Batch) -> Batch:
        """The batch with classes as int64 [B]; raises ValueError for values that no rank allows."""
        check_finite(batch.x, "x")
        check_levels(batch.sigma)
        if batch.exclude is not None:
            check_exclude(batch.exclude, len(batch.x), self._n)
        if batch.classes is None or not self._sizes or batch.x.shape[0] == 0:
            return batch._replace(classes=None)
        wanted = check_requested_classes(batch.classes, self.label_dim)
        for label in wanted.unique().tolist():
            if label not in self._sizes:
                raise ValueError(f"class_labels: expected a class with data, found {label}, of which there are none")
        return batch._replace(classes=wanted)

    def _here(self, batch: Batch) -> _Here:
        n, first = self.stored.n, self.first
        mask = None if batch.mask is None else batch.mask[:, first : first + n]
        exclude = batch.exclude
        if exclude is not None:
            exclude = torch.where((exclude >= first) & (exclude < first + n), exclude - first, -1)
        local = batch._replace(mask=mask, exclude=exclude)
        return _Here(local, self._mass(local))

    def _mass(self, batch: Batch) -> Tensor:
        """M_k [B] float64, where queries are: log of the prior weight of the rows here that each query sees."""
        size = batch.x.shape[0]
        out = torch.full((size,), self._log_total, dtype=torch.float64, device=batch.x.device)
        if batch.classes is None and batch.mask is None and batch.exclude is None:
            return out
        n, prior = self.stored.n, self.conditioning.log_prior
        if prior is None:
            prior = torch.full((n,), -math.log(n), dtype=torch.float64, device=self.stored.rows.device)
        seen = None if batch.mask is None else self.stored.in_storage_order(batch.mask)
        exclude = None if batch.exclude is None else self.conditioning._rows_of(batch.exclude)
        labels = [None] * size if batch.classes is None else batch.classes.tolist()
        for b, label in enumerate(labels):
            rows = range(n) if label is None else self.conditioning._ranges.get(label, range(0))
            weights = prior[rows.start : rows.stop]
            if seen is not None:
                weights = weights.masked_fill(~seen[b, rows.start : rows.stop], -torch.inf)
            if exclude is not None and int(exclude[b]) in rows:
                weights = weights.clone()
                weights[int(exclude[b]) - rows.start] = -torch.inf
            out[b] += weights.logsumexp(0) if len(weights) else -torch.inf
        return out

    def _asked(self, here: _Here, which: Tensor | None) -> Iterator[tuple[Tensor, SameRows]]:
        """The queries that see something here, of those in `which`: their places there, and the query of an engine."""
        mass = here.mass if which is None else here.mass[which]
        present = (~mass.isneginf()).nonzero()[:, 0]
        if len(present) == 0:
            return
        batch = here.batch.part(present if which is None else which[present])
        for asked in self.conditioning.parts(batch):
            yield (present if asked.chosen is None else present[asked.chosen.to(present.device)]), asked

    def _part(
        self, here: _Here, which: Tensor | None, tol: float, log_tol: float, topk: int, *, with_trace: bool
    ) -> Part:
        x, mass = (one if which is None else one[which] for one in (here.batch.x, here.mass))
        (size, d), parts = x.shape, 1 if self.mirror is None else 2
        mean: Tensor | None = None
        numbers = torch.zeros(6, parts, size, dtype=torch.float64, device=x.device)
        log_prob, entropy, ess, trace, off, off_log = numbers
        ess.fill_(1)
        if not with_trace:
            trace.fill_(torch.nan)
        indices = torch.full((parts, size, topk), -1, dtype=torch.int64, device=x.device)
        weights = torch.zeros(parts, size, topk, dtype=torch.float64, device=x.device)
        logits = torch.full((parts, size, topk), -torch.inf, dtype=torch.float64, device=x.device)
        for chosen, asked in self._asked(here, which):
            said = self._halves(replace(asked.query, tol=tol, log_tol=log_tol), topk, with_trace=with_trace)
            found = said.answer
            if len(chosen) == size:  # all, in their order
                mean = found.mean.to(x.device)
            else:
                mean = torch.zeros(parts, size, d, dtype=torch.float64, device=x.device) if mean is None else mean
                mean[:, chosen] = found.mean.to(x.device)
            numbers_of = (found.log_prob, found.entropy, found.ess, said.trace, *said.bounds)
            for into, values in zip((log_prob, entropy, ess, trace, off, off_log), numbers_of, strict=True):
                into[:, chosen] = values.to(x.device)
            k = found.indices.shape[2]
            if k:
                indices[:, chosen, :k] = found.indices.to(x.device)
                weights[:, chosen, :k] = found.weights.to(x.device)
                logits[:, chosen, :k] = said.logits.to(x.device) + mass[chosen, None]
        if mean is None:  # nobody sees anything here
            mean = torch.zeros(parts, size, d, dtype=torch.float64, device=x.device)
        answer = Posterior(mean, log_prob, entropy, ess, indices, weights, trace, bounds=Bounds(off, off_log))
        return Part(x, mass.expand(parts, -1), answer, logits)

    # ---- moving and copying ----

    def to(self, device: torch.device) -> Self:
        return type(self)(self._local.to(device), self._group, self._log_total)

    def __getstate__(self) -> NoReturn:
        raise TypeError(
            "denoiser: expected one whose rows all lie in this process, for a copy or a pickle, found a part of "
            f"{self.ranks.size}; allowed to make one anew on every rank"
        )

    def __setstate__(self, state: dict[str, Any]) -> NoReturn:
        raise TypeError("state: found that of a part of the data, which is not pickled; allowed that of a PointSet")
