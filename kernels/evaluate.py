"""One evaluation of r for a batch: a fixed sequence of launches, none of which the host waits for."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from geodiff.kernels import candidates
from geodiff.kernels.bounds import cutoff
from geodiff.kernels.candidates import candidates as look_at_candidates
from geodiff.kernels.configs import ROWS, SPLIT
from geodiff.kernels.decide import TOLD, decide
from geodiff.kernels.exact import exact
from geodiff.kernels.logits import logits
from geodiff.kernels.merge import Running
from geodiff.kernels.prepared import Prepared
from geodiff.kernels.queries import Queries, prepare
from geodiff.kernels.seen import Seen
from geodiff.kernels.weighted_sum import Marks, softmax, weighted_sum

_LOGITS = 2**22  # logits at a time
_SUMS = 2**25  # numbers in the partial sums at a time


@dataclass(frozen=True)
class Asked:
    """Queries against rows [first, first + n) of the data."""

    first: int
    n: int
    x: Tensor  # [B, d] in model space, columns side by side
    sigma: Tensor  # [B] float64
    seen: Seen
    tol: float

    @property
    def rows(self) -> slice:
        """The rows, of all of the data."""
        return slice(self.first, self.first + self.n)

    def chunks(self, size: int) -> Iterator[slice]:
        """The rows, up to `size` at a time."""
        return (slice(start, min(start + size, self.n)) for start in range(0, self.n, size))


def evaluate(data: Prepared, asked: Asked, mean: Tensor, path: Tensor) -> tuple[Queries, Tensor]:
    """Writes mean [B, d] float64, r in model space, and path [B] int8; returns the queries and told [TOLD, B].

    Ten launches where the rows are one chunk, and four more for each further chunk.
    """
    (batch, d), n = asked.x.shape, asked.n
    rows = data.rows[asked.rows]
    queries = prepare(data, asked.x, asked.sigma, n=n, tol=asked.tol, path=path)
    marks = Marks.empty(batch, n, mean.device)
    running = Running(mean, data.shift, data.unit)
    cut = cutoff(data, n, asked.tol)
    width = most = most_candidates(n)
    for some in asked.chunks(chunk_rows(batch, d)):
        out, here = multiply(data, asked, queries, some)
        # A query of which few rows count so far, for its share of the rows, is left out of the weighted sum.
        most, last = width * some.stop // n, some.stop == n
        join(data, queries, here, asked.seen.part(some), out, marks.after(some.start), running, cut, most, last=last)
    told = torch.empty(TOLD, batch, dtype=torch.float64, device=mean.device)
    decide(data, queries, mean, running.kept, told, n=n, most=most, cut=cut, tol=asked.tol)
    look_at_candidates(data, rows, asked.seen, queries, marks, width, mean, told)
    exact(data, rows, asked.seen, queries, marks, mean, told)
    return queries, told


def multiply(data: Prepared, asked: Asked, queries: Queries, some: slice) -> tuple[Tensor, slice]:
    """The logits [B, C] of rows `some` of those asked, and where these lie in the data."""
    here = slice(asked.first + some.start, asked.first + some.stop)
    rows, half, seen, numbers = data.rows[here], data.half[here], asked.seen.part(some), queries.numbers
    out = torch.empty(len(queries.centred), len(rows), dtype=torch.float64, device=rows.device)
    logits(queries.parts, numbers[1], queries.digits, rows, half, seen, numbers[0], queries.best, out)
    return out, here


def join(
    data: Prepared, queries: Queries, here: slice, seen: Seen, out: Tensor, marks: Marks, running: Running,
    cut: float, most: int, *, last: bool,
) -> None:  # fmt: skip
    """Takes the softmax of the logits out [B, C] of rows `here`, and what it weighs of them, into `running`."""
    state, weights = softmax(out, data, here, seen, queries, marks, cut)
    sums = weighted_sum(weights, data.rows[here], queries, marks, most)
    running.merge(sums, state, queries, marks, most, last=last)


def chunk_rows(batch: int, d: int) -> int:
    """Rows whose logits and partial sums are held at a time: a whole number of splits."""
    by_sums = _SUMS // (max(1, batch) * d)
    return max(1, min(_LOGITS // max(1, batch) // SPLIT, by_sums, ROWS // SPLIT)) * SPLIT


def most_candidates(n: int) -> int:
    """Of n rows, up to how many are looked at one by one: where they are few, a pass over all of them is cheaper."""
    return min(candidates.MOST, max(64, n // 8))
