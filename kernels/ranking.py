"""The k rows with the largest exact logits, ties to the lower row. The host waits for the lists."""

import torch
from torch import Tensor

from geodiff.base.posterior import weights_of
from geodiff.kernels.asked import Asked
from geodiff.kernels.configs import ROWS
from geodiff.kernels.evaluate import multiply
from geodiff.kernels.prepared import Prepared
from geodiff.kernels.queries import BASE_ERROR, INV, ROW_ERROR, Queries
from geodiff.kernels.refine import all_distances, pair_distances

#: Rows of a query that may be among the k, up to which they are listed.
_MOST = 4096
_ELEMENTS = 2**21  # logits at a time


def ranked(data: Prepared, asked: Asked, queries: Queries, log_sum: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(indices int64, weights) [B, k] of the k heaviest rows of those asked; where fewer have a weight, -1 and 0."""
    batch = len(queries.centred)
    q, r, listed = _listed(data, asked, queries, k)
    counts = torch.bincount(q, minlength=batch)
    start = counts.cumsum(0) - counts
    place = torch.arange(len(q), device=q.device) - start[q]
    width = max(k, int(counts.max()))
    values = log_sum.new_full((batch, width), -torch.inf)
    rows = torch.full((batch, width), -1, dtype=torch.int64, device=q.device)
    distances = pair_distances(queries.centred, data.rows[asked.rows], q, r)
    values[q, place] = -0.5 * distances * queries.numbers[INV][q] + _bias(asked, q, r)
    rows[q, place] = r
    indices, weights = heaviest(values, rows, log_sum, k)
    for b in (~listed).nonzero()[:, 0].tolist():
        indices[b], weights[b] = _of_all(data, asked, queries, log_sum, k, b)
    return torch.where(weights == 0, _absent(asked, indices), indices), weights


def heaviest(logits: Tensor, rows: Tensor, log_sum: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(indices, weights) [B, k] of the k largest logits [B, M] float64 of rows [B, M]; rows < 0 are no rows."""
    by_row = rows.argsort(dim=1, stable=True)
    logits, rows = logits.gather(1, by_row), rows.gather(1, by_row)
    # Rows that are none sort behind those of weight 0.
    absent = (rows < 0).to(torch.int8)
    order = logits.argsort(dim=1, descending=True, stable=True)
    order = order.gather(1, absent.gather(1, order).argsort(dim=1, stable=True))[:, :k]
    logits = logits.gather(1, order)
    return rows.gather(1, order), weights_of(logits, log_sum)


def _listed(data: Prepared, asked: Asked, queries: Queries, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """(queries [P], rows [P], listed [B]): pairs that may be among the k, by query and row; and whose are all there."""
    batch = len(queries.centred)
    row_error, base_error = (queries.numbers[place, :, None] for place in (ROW_ERROR, BASE_ERROR))
    nearest = queries.best.new_empty(batch, 0)  # the k largest lower ends so far
    counts = torch.zeros(batch, dtype=torch.int64, device=nearest.device)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    threshold = nearest
    for chunk in asked.chunks(_chunk(batch)):
        out, index = multiply(data, queries, chunk), asked.numbers(chunk)
        error = row_error * data.away[chunk.rows] + base_error
        # A logit that overflowed says nothing: it may be anything.
        lower = (out - error).nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)
        upper = (out + error).nan_to_num(nan=torch.inf, neginf=torch.inf)
        unseen = _unseen(asked, index.expand(batch, -1))
        upper = upper.masked_fill(unseen, -torch.inf)
        nearest = torch.cat([nearest, lower], 1)
        nearest = nearest.topk(min(k, nearest.shape[1]), dim=1).values
        # Until k rows are known, all of them may be among the k.
        threshold = nearest[:, -1] if nearest.shape[1] == k else torch.full_like(queries.best, -torch.inf)
        keep = (upper >= threshold[:, None]) & ~upper.isneginf()
        counts += keep.sum(1)
        keep &= (counts <= max(_MOST, k))[:, None]
        q, r = keep.nonzero(as_tuple=True)
        found.append((q, index[r], upper[q, r]))
    listed = counts <= max(_MOST, k)
    q, r, upper = (torch.cat(values) for values in zip(*found, strict=True))
    kept = (listed[q] & (upper >= threshold[q])).nonzero()[:, 0]
    order = kept[q[kept].argsort(stable=True)]
    return q[order], r[order], listed


def _of_all(data: Prepared, asked: Asked, queries: Queries, log_sum: Tensor, k: int, b: int) -> tuple[Tensor, Tensor]:
    """The k heaviest rows of query b, of all of them."""
    logits, indices = log_sum.new_empty(1, 0), torch.empty(1, 0, dtype=torch.int64, device=log_sum.device)
    x = queries.centred[b : b + 1]
    for chunk in asked.chunks(_chunk(1)):
        index = asked.numbers(chunk)
        here = -0.5 * all_distances(x, data.rows[chunk.rows]) * queries.numbers[INV, b]
        here = here + _bias(asked, torch.full_like(index, b), index)
        logits, indices = torch.cat([logits, here], 1), torch.cat([indices, index[None]], 1)
        order = logits.argsort(dim=1, descending=True, stable=True)[:, :k]  # ties to the lower row
        logits, indices = logits.gather(1, order), indices.gather(1, order)
    return indices[0], weights_of(logits, log_sum[b : b + 1])[0]


def _absent(asked: Asked, indices: Tensor) -> Tensor:
    """`indices` [B, k] of rows of weight 0, -1 in the place of those that are not seen."""
    return indices.masked_fill(_unseen(asked, indices.clamp_min(0)), -1)


def _unseen(asked: Asked, rows: Tensor) -> Tensor:
    """Whether queries do not see rows [B, k], or give them no prior weight: [B, k] bool."""
    bias, exclude = asked.seen.bias, asked.seen.exclude
    gone = torch.zeros_like(rows, dtype=torch.bool)
    if bias is not None:
        gone |= bias.expand(len(rows), -1).gather(1, rows).isneginf()
    return gone if exclude is None else gone | (rows == exclude[:, None])


def _bias(asked: Asked, queries: Tensor, rows: Tensor) -> Tensor:
    """The biases [P] of listed queries [P] and rows [P], -inf where a query does not see the row."""
    bias, exclude = asked.seen.bias, asked.seen.exclude
    found = torch.zeros(rows.shape, dtype=torch.float64, device=rows.device)
    if bias is not None:
        found = bias[rows] if bias.ndim == 1 else bias[queries, rows]
    return found if exclude is None else found.masked_fill(exclude[queries] == rows, -torch.inf)


def _chunk(batch: int) -> int:
    """Rows at a time."""
    return min(ROWS, max(1024, _ELEMENTS // batch // 1024 * 1024))
