"""Few rows carry weight: find them by logits of known error, and treat those exactly."""

import torch
from torch import Tensor

from geodiff.kernels.bounds import row_errors, stored_error
from geodiff.kernels.configs import ROWS
from geodiff.kernels.logits import logits
from geodiff.kernels.queries import split
from geodiff.kernels.ranking import heaviest
from geodiff.kernels.refine import gathered_sum, pair_distances
from geodiff.kernels.request import Answer, Request

SCREENED = 0
#: Candidates of a query beyond which the dense pass is cheaper.
MOST = 4096
_ELEMENTS = 2**22  # logits at a time
_DIGITS = 2


def screen(request: Request) -> tuple[Answer, Tensor]:
    """(answers, done [B] bool): queries with more than MOST candidates are not done."""
    data, batch, n = request.data, len(request.x), request.n
    inv = request.inv
    query = split(request.x, data.rows.dtype, _DIGITS, dithered=False)
    row_error, base_error = row_errors(data, query, request.x, inv)
    chunk = _chunk(batch)
    # The largest lower end of a logit so far. That of `near` is 0, exactly, unless its weight is 0.
    best = request.x.new_full((batch,), -torch.inf)
    nearest = request.x.new_empty(batch, 0)  # the topk largest lower ends
    counts = torch.zeros(batch, dtype=torch.int64, device=request.x.device)
    queries, rows, uppers = [], [], []
    threshold = best
    for start in range(0, n, chunk):
        stop = min(start + chunk, n)
        part = slice(request.first + start, request.first + stop)
        bias = None if request.bias is None else request.bias[..., start:stop]
        out = request.x.new_empty(batch, stop - start, dtype=torch.float32)
        logits(query, data.rows[part], data.half[part], bias, request.reference(), inv, out)
        error = row_error[:, None] * data.away[part] + base_error[:, None] + stored_error(out)  # [B, C] float64
        # A logit that overflowed says nothing: it may be anything.
        lower = (out - error).nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)
        upper = (out + error).nan_to_num(nan=torch.inf, neginf=torch.inf)
        if bias is not None:
            upper = upper.masked_fill(bias == -torch.inf, -torch.inf)
        best = torch.maximum(best, lower.amax(1))
        if request.topk:
            nearest = torch.cat([nearest, lower], 1)
            nearest = nearest.topk(min(request.topk, nearest.shape[1]), dim=1).values
        threshold = _threshold(best - request.cut, nearest, request.topk)
        keep = upper >= threshold[:, None]
        if not request.topk:  # rows of weight 0 are of no use, even where nothing better is known yet
            keep &= ~upper.isneginf()
        counts += keep.sum(1)
        keep &= (counts <= MOST)[:, None]
        q, r = keep.nonzero(as_tuple=True)
        queries.append(q)
        rows.append(r + start)
        uppers.append(upper[q, r])
    q, r = torch.cat(queries), torch.cat(rows)
    done = counts <= MOST
    kept = (done[q] & (torch.cat(uppers) >= threshold[q])).nonzero()[:, 0]
    q, r = q[kept], r[kept]
    order = q.argsort(stable=True)  # by query, and within it by row
    return exact_over(request, q[order], r[order]), done


def exact_over(request: Request, queries: Tensor, rows: Tensor) -> Answer:
    """Answers over listed candidates (queries[p], rows[p]), sorted by query and row, in float64 difference form."""
    batch = len(request.x)
    distances = pair_distances(request.x, request.rows, queries, rows)
    bias = request.bias_of(queries, rows)
    values = -distances / (2 * request.sigma.square())[queries] + bias
    counts = torch.bincount(queries, minlength=batch)
    start = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    place = torch.arange(len(rows), device=rows.device) - start[queries]
    width = max(1, int(counts.max()))
    logit = values.new_full((batch, width), -torch.inf)
    listed = rows.new_full((batch, width), -1)
    logit[queries, place], listed[queries, place] = values, rows
    top = logit.amax(1, keepdim=True)
    below = logit - top
    p = torch.where(below >= -request.cut, below.exp(), 0)
    total = p.sum(1)
    weights = p / total[:, None]
    mean = gathered_sum(weights[queries, place], request.rows, rows, start)
    log_sum = top[:, 0] + total.log()
    indices, heavy = heaviest(logit, listed, log_sum, request.topk)
    return Answer(
        mean=(mean + request.data.shift) / request.data.unit,
        log_sum=log_sum,
        entropy=torch.special.entr(weights).sum(1),
        ess=1 / weights.square().sum(1),
        bias=torch.zeros_like(log_sum).index_add(0, queries, (weights[queries, place] * bias).nan_to_num(nan=0)),
        indices=indices,
        weights=heavy,
        path=torch.full((batch,), SCREENED, dtype=torch.int8, device=rows.device),
    )


def _threshold(least: Tensor, nearest: Tensor, topk: int) -> Tensor:
    if not topk:
        return least
    # Until k rows are known, all of them may be among the k nearest.
    full = nearest.shape[1] == topk
    return torch.minimum(least, nearest[:, -1]) if full else torch.full_like(least, -torch.inf)


def _chunk(batch: int) -> int:
    return min(ROWS, max(1024, _ELEMENTS // max(1, batch) // 1024 * 1024))
