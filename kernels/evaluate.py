"""One evaluation of r for a batch: a fixed sequence of launches, none of which the host waits for."""

import torch
from torch import Tensor

from geodiff.kernels import candidates
from geodiff.kernels.asked import Asked, Chunk
from geodiff.kernels.bounds import cutoff
from geodiff.kernels.candidates import candidates as look_at_candidates
from geodiff.kernels.configs import ROWS, SPLIT
from geodiff.kernels.decide import decide
from geodiff.kernels.exact import exact
from geodiff.kernels.logits import logits
from geodiff.kernels.merge import Running
from geodiff.kernels.prepared import Prepared
from geodiff.kernels.queries import INV, Queries, prepare
from geodiff.kernels.weighted_sum import PARTS, Marks, splits

_BYTES = 2**30  # of logits and weights at a time


def evaluate(data: Prepared, asked: Asked, mean: Tensor, path: Tensor) -> Running:
    """Writes mean [B, d] float64, r in model space, and path [B] int8; returns what else has been found.

    Ten launches where the rows are one chunk, as they are while logits and weights fit in _BYTES, and four more for
    each further chunk. A chunk of so many logits is milliseconds of work.
    """
    n = asked.n
    queries = prepare(data, asked.x, asked.sigma, n=n, tol=asked.tol, path=path)
    marks = Marks.empty(len(asked.x), n, mean.device)
    running = Running(data, queries, mean, cutoff(data, n, asked.tol))
    width = most = most_candidates(n)
    for chunk in asked.chunks(chunk_rows(data, len(asked.x))):
        seen_now = chunk.rows.stop - asked.first
        # A query of which few rows count so far, for its share of the rows, is left out of the weighted sum.
        most, here = width * seen_now // n, marks.after(chunk.rows.start - asked.first)
        running.take(multiply(data, queries, chunk), chunk, here, most, last=seen_now == n)
    decide(asked, running, most)
    look_at_candidates(asked, running, marks, width)
    exact(asked, running, marks)
    return running


def multiply(data: Prepared, queries: Queries, chunk: Chunk) -> Tensor:
    """The logits [B, C] of a chunk."""
    rows, half = data.rows[chunk.rows], data.half[chunk.rows]
    # Whole splits: then the logits of every query begin where wide stores may.
    width = splits(len(rows)) * SPLIT
    out = torch.empty(len(queries.centred), width, dtype=torch.float64, device=rows.device)[:, : len(rows)]
    logits(queries, rows, half, chunk.seen, queries.numbers[INV], out)
    return out


def chunk_rows(data: Prepared, batch: int) -> int:
    """Rows whose logits, and weights in parts, are held at a time: a whole number of splits."""
    parts, dtype = PARTS[data.rows.dtype]
    logit = torch.float64.itemsize + parts * dtype.itemsize
    return max(1, min(_BYTES // (max(1, batch) * logit), ROWS) // SPLIT) * SPLIT


def most_candidates(n: int) -> int:
    """Of n rows, up to how many are looked at one by one: where they are few, a pass over all of them is cheaper."""
    return min(candidates.MOST, max(64, n // 8))
