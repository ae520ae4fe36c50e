"""Who sees what: a batch of queries, split into queries of engines by the rows that each may see."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import torch
from torch import Tensor

from geodiff.backends import Query
from geodiff.base.arguments import check_exclude, check_tensor
from geodiff.base.array_like import as_tensor
from geodiff.data.labels import check_requested_classes
from geodiff.denoiser.storage import StoredRows


class Batch(NamedTuple):
    """Queries, flat, and what each of them asks to see.

    x        [B, d] float32 or float64 in model space, in storage order
    sigma    [B] float64
    classes  int64 [B] or one-hot [B, K]: the data of one class only; None: of all
    mask     bool [B, N], in the order of the data passed in: the points that are True; None: all
    exclude  int64 [B], in the order of the data passed in: all points but this one (its mirror image included), -1: all
    tol      relative error allowed in the mean
    """

    x: Tensor
    sigma: Tensor
    classes: Tensor | None
    mask: Tensor | None
    exclude: Tensor | None
    tol: float

    def at(self, x: Tensor, sigma: Tensor) -> "Batch":
        """The same question asked elsewhere."""
        return Batch(x, sigma, self.classes, self.mask, self.exclude, self.tol)  # see geodiff.paths.Scales

    def within(self, tol: float) -> "Batch":
        """The same question with another tolerance."""
        return Batch(self.x, self.sigma, self.classes, self.mask, self.exclude, tol)

    def part(self, chosen: Tensor) -> Self:
        """The chosen queries of it."""
        classes, mask, exclude = (
            None if value is None else pick(chosen, value)[0] for value in (self.classes, self.mask, self.exclude)
        )
        x, sigma = pick(chosen, self.x, self.sigma)
        return type(self)(x, sigma, classes, mask, exclude, self.tol)


class SameRows(NamedTuple):
    """Queries of a batch that see the same range of rows."""

    chosen: Tensor | None  # which queries; None: all of them
    query: Query

    def pick(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Of values that have a row for each query of the batch, the rows of these queries."""
        return pick(self.chosen, *values)


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What the data set allows to ask for.

    stored     the rows
    groups     int64 [k, 3], for each class that has points: class, first row, last row + 1; None without labels
    log_prior  [N] float64, normalised, in storage order; None: all alike
    """

    stored: StoredRows
    groups: Tensor | None = None
    log_prior: Tensor | None = None

    @cached_property
    def _ranges(self) -> dict[int, range]:
        """The rows of each class that has points, classes rising."""
        groups = [] if self.groups is None else self.groups.tolist()
        return {label: range(begin, end) for label, begin, end in groups}

    @property
    def label_dim(self) -> int:
        """The largest class with points, plus 1; 0 without labels."""
        return next(reversed(self._ranges)) + 1 if self._ranges else 0

    def parts(self, batch: Batch) -> Iterator[SameRows]:
        """The batch as queries of engines: one of all, or one for each class that is asked for.

        Raises ValueError for a class or mask that leaves a query nothing to see.
        """
        n = self.stored.n
        seen = None if batch.mask is None else self.stored.in_storage_order(batch.mask)
        left_out = None if batch.exclude is None else self._rows_of(batch.exclude)
        if seen is not None and left_out is not None:  # one condition less: the mask says it, too
            seen = seen & (left_out[:, None] != torch.arange(n, device=seen.device))
            left_out = None
        if batch.classes is None or self.groups is None or batch.x.shape[0] == 0:
            rows = range(n)
            yield SameRows(None, self._query(batch.x, batch.sigma, rows, seen, left_out, batch.tol))
            return
        wanted = check_requested_classes(batch.classes, self.label_dim)
        found = wanted.unique().tolist()
        for label in found:
            # All of one class, as often when sampling: nothing to pick apart and put together again.
            chosen = None if len(found) == 1 else (wanted == label).nonzero()[:, 0].to(self.stored.rows.device)
            if label not in self._ranges:
                raise ValueError(f"class_labels: expected a class with data, found {label}, of which there are none")
            rows, (x, sigma) = self._ranges[label], pick(chosen, batch.x, batch.sigma)
            these_see, these_leave = (None if value is None else pick(chosen, value)[0] for value in (seen, left_out))
            yield SameRows(chosen, self._query(x, sigma, rows, these_see, these_leave, batch.tol))

    def _query(
        self, x: Tensor, sigma: Tensor, rows: range, seen: Tensor | None, left_out: Tensor | None, tol: float
    ) -> Query:
        prior = self._prior(rows, seen)
        if left_out is None:
            return Query(x, sigma, rows, prior, tol)
        if len(rows) < self.stored.n:
            left_out = torch.where((left_out >= rows.start) & (left_out < rows.stop), left_out, -1)
        query = Query(x, sigma, rows, prior, tol, left_out)
        mass = query.log_mass if prior is not None or len(rows) == 1 else 0.0  # two that weigh alike leave one
        if isinstance(mass, Tensor) and bool(mass.isneginf().any()):
            raise ValueError(
                "exclude: expected a point of weight above 0 beside the one that is excluded, found none for a query; "
                "allowed N >= 2, and classes of 2 points or more"
            )
        return query

    def _rows_of(self, exclude: Tensor) -> Tensor:
        """Rows, for positions in the data as it was passed in; -1 stays."""
        n = self.stored.n
        exclude = check_exclude(exclude, len(exclude), n)
        if self.stored.order is not None:
            exclude = torch.where(exclude < 0, -1, self.stored.places(exclude.clamp(min=0)))
        return exclude.to(self.stored.rows.device)

    def _prior(self, rows: range, seen: Tensor | None) -> Tensor | None:
        prior, part = self.log_prior, slice(rows.start, rows.stop)
        if seen is not None:
            flat = torch.zeros(self.stored.n, dtype=torch.float64, device=seen.device)
            prior = (flat if prior is None else prior).masked_fill(~seen, -torch.inf)
        elif prior is None or len(rows) == prior.shape[0]:
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

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        prior = None if self.log_prior is None else self.log_prior.to(device)
        return type(self)(self.stored.to(device), self.groups, prior)


def pick(chosen: Tensor | None, *values: Tensor) -> tuple[Tensor, ...]:
    """The chosen rows of each value; all of them for None."""
    return values if chosen is None else tuple(value[chosen.to(value.device)] for value in values)


def check_mask(mask: object, batch: int, n: int) -> Tensor:
    """mask as a tensor, once it is known to be bool [B, N]; else TypeError or ValueError. Values are not read."""
    mask = check_tensor(as_tensor(mask, "mask"), "mask", (torch.bool,))
    if mask.shape != (batch, n):
        raise ValueError(
            f"mask: expected shape [B, N] = [{batch}, {n}], found {list(mask.shape)}; "
            f"allowed one row per query, one column per data point"
        )
    return mask
