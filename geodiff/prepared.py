"""The data set made ready for queries: which rows a query sees, with which prior weights, and mirrored or not.

Everything here is flat: queries [B, d] in storage order, answers in float64, and nothing recorded for autograd.
`geodiff.operators` turns it into torch operators. Those cannot carry a Python object, so each `Prepared` has a number.
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple, Self
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from geodiff import backends, reference
from geodiff.arguments import check_finite, check_levels, check_tensor, check_topk
from geodiff.augmentation import merge, merge_covariances, split_draws
from geodiff.backends.engine import Combination
from geodiff.labels import check_requested_classes
from geodiff.posterior import Posterior
from geodiff.storage import StoredRows

_alive: "WeakValueDictionary[int, Prepared]" = WeakValueDictionary()
_numbers = itertools.count(1)

FIELDS = ("mean", "log_prob", "entropy", "ess", "trace", "indices", "weights")


def find(number: int) -> "Prepared":
    """The data set of that number; ReferenceError if it is gone."""
    found = _alive.get(number)
    if found is None:
        raise ReferenceError(
            f"data: expected a living data set, found number {number}; allowed while its denoiser is kept"
        )
    return found


class _Group(NamedTuple):
    """Queries that see the same range of rows."""

    rows: range
    chosen: Tensor | None  # which queries; None: all of them
    prior: Tensor | None  # [N] or [b, N], normalised over `rows`


class Prepared:
    """Rows, their classes, prior weights, mirroring, and the engines over them (opened when first wanted).

    starts     [K + 1]: rows of class k are starts[k] .. starts[k + 1]; None without labels
    log_prior  [N] float64, normalised, in storage order; None: all alike
    flip       [d], the order that mirrors a flat point; None: no augmentation
    backend    as `OptimalDenoiser` takes it; raises as `backends.choose` does
    """

    def __init__(
        self, stored: StoredRows, starts: list[int] | None, log_prior: Tensor | None, flip: Tensor | None, backend: str
    ) -> None:
        self.stored, self._backend = stored, backend
        self._starts, self._log_prior, self._flip = starts, log_prior, flip
        self.engines = backends.Engines(backend, stored.rows)
        self._register()

    def _register(self) -> None:
        self.number = next(_numbers)
        _alive[self.number] = self

    @property
    def mean(self) -> Tensor:
        """sum_i x_i / N over points and copies, [d] float64."""
        mean = self.engines.serving().mean
        return mean if self._flip is None else (mean + mean[self._flip.to(mean.device)]) / 2

    # ---- answers ----

    def posterior(
        self,
        x: Tensor,
        sigma: Tensor,
        classes: Tensor | None,
        mask: Tensor | None,
        tol: float,
        topk: int,
        with_trace: bool,
    ) -> Posterior:
        """The posterior of x [B, d] at sigma [B], every field flat and float64; the trace is NaN unless asked for.

        classes: as `check_requested_classes` takes them; mask bool [B, N], in the order of the data passed in.
        Raises ValueError for values that are not allowed: NaN in x, sigma <= 0, a class or mask without points.
        """
        check_finite(x, "x")
        check_levels(sigma)
        parts = []
        for group in self._groups(classes, mask, len(x)):
            queries, levels = _pick(group.chosen, x, sigma)
            found = self._ask(queries, levels, group, tol, check_topk(topk, len(group.rows)), with_trace)
            parts.append((group.chosen, found))
        out = _scatter(parts, len(x))
        return replace(out, indices=self._original(out.indices)) if topk else out

    def combine(
        self,
        x: Tensor,
        sigma: Tensor,
        classes: Tensor | None,
        mask: Tensor | None,
        tol: float,
        into: Combination,
    ) -> None:
        """Writes `into`, r being the mean of `posterior`; raises as that does.

        Where all queries see the same rows, nothing of the size of x is allocated.
        """
        check_levels(sigma)
        group = next(self._groups(classes, mask, len(x)))
        if group.chosen is not None or self._flip is not None:
            into.take(self.posterior(x, sigma, classes, mask, tol, 0, with_trace=False).mean)
            return
        engine = self.engines.serving(len(x))  # for all: there is no other group
        if not engine.checks_queries:
            check_finite(x, "x")
        engine.combine(x, sigma, into, tol=tol, log_prior=group.prior, rows=group.rows)

    def unchecked(self, x: Tensor, sigma: Tensor, tol: float, into: Combination) -> None:
        """`combine` over all rows; nothing is checked and mirroring is left out."""
        rows = range(len(self.stored.rows))
        self.engines.serving(len(x)).combine(x, sigma, into, tol=tol, log_prior=self._log_prior, rows=rows)

    def covariance(
        self,
        x: Tensor,
        sigma: Tensor,
        classes: Tensor | None,
        mask: Tensor | None,
        mean: Tensor,
        v: Tensor,
        slope: Tensor,
        tol: float,
    ) -> tuple[Tensor, Tensor]:
        """`Engine.covariance` under the same conditions as `posterior`, whose mean is `mean`."""
        rows, far = torch.empty_like(x, dtype=torch.float64), sigma.new_empty(len(x))
        for group in self._groups(classes, mask, len(x)):
            queries, levels, centres, along, slopes = _pick(group.chosen, x, sigma, mean, v, slope)
            found = self._covary(queries, levels, group, centres, along, slopes, tol)
            chosen = slice(None) if group.chosen is None else group.chosen
            rows[chosen], far[chosen] = found[0].to(x.device), found[1].to(x.device)
        return rows, far

    def draw(self, x: Tensor, sigma: Tensor, classes: Tensor | None, mask: Tensor | None, uniform: Tensor) -> Tensor:
        """Indices [B, n] in the order of the data passed in, by inverting the weights' distribution at `uniform`."""
        out = torch.empty(uniform.shape, dtype=torch.int64)
        for group in self._groups(classes, mask, len(x)):
            queries, levels, numbers = _pick(group.chosen, x, sigma, uniform)
            both, again, prior = self._twice(queries, levels, group.prior)
            engine = self.engines.serving(len(both))
            if self._flip is None:
                found = engine.draw(queries, levels, numbers, log_prior=prior, rows=group.rows)
            else:
                answer = engine.posterior(both, again, topk=0, tol=1e-6, log_prior=prior, rows=group.rows)
                copied, rest = split_draws(answer.log_prob, numbers)
                points, copies = engine.draw(both, again, rest, log_prior=prior, rows=group.rows).unflatten(0, (2, -1))
                found = torch.where(copied.to(points.device), copies + len(self.stored.rows), points)
            out[slice(None) if group.chosen is None else group.chosen.cpu()] = found.cpu()
        return self._original(out)

    def differentiable(
        self, x: Tensor, sigma: Tensor, classes: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """mean [B, d] and log_prob [B] by `geodiff.reference` in float64, recorded for autograd: slow and large."""
        x = x.double()
        means, log_probs = torch.zeros_like(x), torch.zeros_like(sigma)
        for group in self._groups(classes, mask, len(x)):
            queries, levels = _pick(group.chosen, x, sigma)
            mean, log_prob = self._refer(queries, levels, group)
            if group.chosen is None:
                return mean, log_prob
            means = means.index_copy(0, group.chosen, mean)
            log_probs = log_probs.index_copy(0, group.chosen, log_prob)
        return means, log_probs

    # ---- one group of queries ----

    def _ask(self, x: Tensor, sigma: Tensor, group: _Group, tol: float, topk: int, with_trace: bool) -> Posterior:
        both, again, prior = self._twice(x, sigma, group.prior)
        engine = self.engines.serving(len(both))
        answer = engine.posterior(both, again, topk=topk, tol=tol, log_prior=prior, rows=group.rows)
        if with_trace:  # for an engine that has to take another look at the rows, as expensive as the answer or more
            trace = engine.trace(both, again, answer, log_prior=prior, rows=group.rows)
        else:
            trace = torch.full_like(answer.log_prob, torch.nan)
        answer = replace(answer, trace=trace)
        if self._flip is None:
            return answer
        logits = _logits(both, again, self.stored.rows, answer.indices, prior)
        return merge(replace(answer, mean=self._mirrored_back(answer.mean)), logits, len(self.stored.rows))

    def _covary(
        self, x: Tensor, sigma: Tensor, group: _Group, mean: Tensor, v: Tensor, slope: Tensor, tol: float
    ) -> tuple[Tensor, Tensor]:
        both, again, prior = self._twice(x, sigma, group.prior)
        engine = self.engines.serving(len(both))
        if self._flip is None:
            return engine.covariance(x, sigma, mean, v, slope, tol=tol, log_prior=prior, rows=group.rows)
        answer = engine.posterior(both, again, topk=0, tol=tol, log_prior=prior, rows=group.rows)
        answer = replace(answer, trace=engine.trace(both, again, answer, log_prior=prior, rows=group.rows))
        along, _, _ = self._twice(v, sigma, None)
        with_rows, with_distance = engine.covariance(
            both, again, answer.mean, along, slope.repeat(2), tol=tol, log_prior=prior, rows=group.rows
        )
        answer = replace(answer, mean=self._mirrored_back(answer.mean))
        return merge_covariances(x.double(), v, slope, answer, self._mirrored_back(with_rows), with_distance)

    def _refer(self, x: Tensor, sigma: Tensor, group: _Group) -> tuple[Tensor, Tensor]:
        rows = self.stored.rows[group.rows.start : group.rows.stop]
        both, again, prior = self._twice(x, sigma, group.prior)
        if prior is not None:
            prior = prior[..., group.rows.start : group.rows.stop]
        if prior is None or prior.ndim == 1:
            found = [reference.posterior(both, rows, again, log_weights=prior)]
        else:
            found = [
                reference.posterior(both[b : b + 1], rows, again[b], log_weights=prior[b]) for b in range(len(both))
            ]
        mean = torch.cat([one.mean for one in found])
        log_prob = torch.cat([one.log_prob for one in found])
        if self._flip is None:
            return mean, log_prob
        means, log_probs = self._mirrored_back(mean).unflatten(0, (2, -1)), log_prob.unflatten(0, (2, -1))
        half = torch.log(torch.tensor(2.0, dtype=torch.float64))
        return (log_probs.softmax(0)[..., None] * means).sum(0), log_probs.logsumexp(0) - half

    def _twice(self, x: Tensor, sigma: Tensor, prior: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """The queries as they are and, where copies are wanted, mirrored behind them."""
        if self._flip is None:
            return x, sigma, prior
        if prior is not None and prior.ndim == 2:
            prior = prior.repeat(2, 1)
        return torch.cat([x, x[:, self._flip]]), sigma.repeat(2), prior

    def _mirrored_back(self, rows: Tensor) -> Tensor:
        as_is, mirrored = rows.unflatten(0, (2, -1))
        return torch.cat([as_is, mirrored[:, self._flip]])

    # ---- who sees what ----

    def _groups(self, classes: Tensor | None, mask: Tensor | None, batch: int) -> Iterator[_Group]:
        n = len(self.stored.rows)
        seen = None if mask is None else self.stored.in_storage_order(mask)
        if classes is None or self._starts is None or batch == 0:
            yield _Group(range(n), None, self._prior(range(n), seen))
            return
        wanted = check_requested_classes(classes, len(self._starts) - 1)
        found = wanted.unique().tolist()
        for label in found:
            # All of one class, as often when sampling: nothing to pick apart and put together again.
            chosen = None if len(found) == 1 else (wanted == label).nonzero()[:, 0].to(self.stored.rows.device)
            rows = range(self._starts[label], self._starts[label + 1])
            if not rows:
                raise ValueError(f"class_labels: expected a class with data, found {label}, of which there are none")
            yield _Group(rows, chosen, self._prior(rows, None if seen is None else _pick(chosen, seen)[0]))

    def _prior(self, rows: range, seen: Tensor | None) -> Tensor | None:
        prior, part = self._log_prior, slice(rows.start, rows.stop)
        if seen is not None:
            flat = torch.zeros(len(self.stored.rows), dtype=torch.float64, device=seen.device)
            prior = (flat if prior is None else prior).masked_fill(~seen, -torch.inf)
        elif prior is None or len(rows) == len(prior):
            return prior
        total = prior[..., part].logsumexp(-1, keepdim=True)
        if total.isinf().any():
            raise ValueError(
                "mask: expected a point of weight above 0 for every query, found none for one; "
                "allowed masks and classes that leave a query something to see"
                if seen is not None
                else "class_labels: expected a class of weight above 0, found one whose log_weights are all -inf"
            )
        return prior - total

    def _original(self, indices: Tensor) -> Tensor:
        """Rows to positions in the data as passed in; copies stay N further on, and -1 (no such point) as it is."""
        n = len(self.stored.rows)
        known = self.stored.original(indices.clamp(min=0) % n)
        return torch.where(indices < 0, -1, known + (indices >= n) * n)

    # ---- moving and copying ----

    def to(self, device: torch.device) -> Self:
        """The same on another device, under a number of its own."""
        moved = object.__new__(type(self))
        moved.__dict__.update(self.__dict__, stored=self.stored.to(device))
        moved.engines = backends.Engines(self._backend, moved.stored.rows)
        moved._log_prior = None if self._log_prior is None else self._log_prior.to(device)
        moved._flip = None if self._flip is None else self._flip.to(device)
        moved._register()
        return moved

    def __getstate__(self) -> dict[str, Any]:
        # Engines hold addresses, and the number names this very object: a copy gets its own of both.
        return {name: value for name, value in self.__dict__.items() if name not in ("engines", "number")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.engines = backends.Engines(self._backend, self.stored.rows)
        self._register()


def _pick(chosen: Tensor | None, *values: Tensor) -> tuple[Tensor, ...]:
    return values if chosen is None else tuple(value[chosen.to(value.device)] for value in values)


def _scatter(parts: list[tuple[Tensor | None, Posterior]], batch: int) -> Posterior:
    """The answers of groups of queries, in the order of the batch."""
    if len(parts) == 1 and parts[0][0] is None:
        return parts[0][1]

    def joined(name: str) -> Tensor:
        first: Tensor = getattr(parts[0][1], name)
        out = first.new_empty(batch, *first.shape[1:])
        for chosen, part in parts:
            assert chosen is not None, "groups are either one of all queries or several of some"
            out[chosen.to(out.device)] = getattr(part, name)
        return out

    fields: dict[str, Any] = {name: joined(name) for name in FIELDS}
    return Posterior(**fields)


def _logits(x: Tensor, sigma: Tensor, rows: Tensor, indices: Tensor, prior: Tensor | None) -> Tensor:
    """log pi_i - |x - x_i|^2 / 2 sigma^2 of the listed rows, [B, k] float64; -inf for index -1."""
    out = torch.full(indices.shape, -torch.inf, dtype=torch.float64, device=x.device)
    for b, row in enumerate(indices.to(x.device)):
        known = row >= 0
        points = reference.model_space(rows[row[known]], torch.float64)
        out[b, known] = -(points - x[b].double()).square().sum(1) / (2 * sigma[b].square())
        if prior is not None:
            out[b, known] += (prior if prior.ndim == 1 else prior[b])[row[known]]
    return out


def check_mask(mask: object, batch: int, n: int) -> Tensor:
    """mask itself, once it is known to be bool [B, N]; else TypeError or ValueError. Values are not read."""
    mask = check_tensor(mask, "mask", (torch.bool,))
    if mask.shape != (batch, n):
        raise ValueError(
            f"mask: expected shape [B, N] = [{batch}, {n}], found {list(mask.shape)}; "
            f"allowed one row per query, one column per data point"
        )
    return mask
