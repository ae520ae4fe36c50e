"""Many rows carry weight: both products over everything, on tensor cores, and a look at the error afterwards."""

import torch
from torch import Tensor

from geodiff.kernels.bounds import cutoff, dense_error, least_scale, row_errors, weighted_error
from geodiff.kernels.configs import ROWS, SPLIT
from geodiff.kernels.logits import logits
from geodiff.kernels.merge import Running
from geodiff.kernels.prepared import Prepared
from geodiff.kernels.queries import split
from geodiff.kernels.ranking import heaviest
from geodiff.kernels.refine import pair_distances
from geodiff.kernels.request import Answer, Request
from geodiff.kernels.weighted_sum import weighted_sum

DENSE, DENSE_FINE = 1, 2
#: Digits of a query of uint8 data on the first and the second try. Floats are always split into three parts.
DIGITS, DIGITS_FINE = 3, 4
_LOGITS = 2**22  # logits at a time
_SUMS = 2**25  # numbers in the partial sums at a time
_SPARE = 16  # rows kept beyond topk, so that the exact order can be settled in float64


def dense(request: Request, digits: int) -> tuple[Answer, Tensor]:
    """(answers, done [B] bool): where the bound on the error exceeds the contract a query is not done."""
    data, (batch, d), n = request.data, request.x.shape, request.n
    inv, device = request.inv, request.x.device
    query = split(request.x, data.rows.dtype, digits, dithered=True)
    row_error, base_error = row_errors(data, query, request.x, inv)
    # A split may be skipped only if it cannot matter even with the logits' error: that of `near` is 0.
    excluded = torch.isneginf(request.bias_of(torch.arange(batch, device=device), request.near))
    floor = -request.cut - 2 * (row_error * data.radius + base_error)
    floor = torch.where(excluded, -torch.inf, floor).float()
    chunk = chunk_rows(batch, d)
    running = Running(batch, d, data.shift, data.unit, device)
    near = request.x.new_empty(batch, 0), torch.empty(batch, 0, dtype=torch.int64, device=device)
    for start in range(0, n, chunk):
        stop = min(start + chunk, n)
        part = slice(request.first + start, request.first + stop)
        bias = None if request.bias is None else request.bias[..., start:stop]
        out = torch.empty(batch, stop - start, dtype=torch.float32, device=device)
        logits(query, data.rows[part], data.half[part], bias, request.reference(), inv, out)
        if request.topk:
            near = _nearest(near, out, start, request.topk + _SPARE)
        running.merge(*weighted_sum(out, data.half[part], floor, data.rows[part], bias), last=stop == n)
    mean, state = running.mean, running.state
    centred = mean * data.unit - data.shift
    error = dense_error(data, query, request.x, inv, state, centred)
    done = error <= _allowed(data, mean, request.tol)  # never where NaN
    top, total, first_moment, squares, _, biases = state
    log_sum = request.offset() + top + total.log()
    indices, weights = _settled(request, near[1], log_sum)
    path = DENSE if digits == DIGITS else DENSE_FINE
    answer = Answer(
        mean=mean,
        log_sum=log_sum,
        entropy=total.log() - first_moment / total,
        ess=total.square() / squares,
        bias=biases / total,
        indices=indices,
        weights=weights,
        path=torch.full((batch,), path, dtype=torch.int8, device=device),
    )
    return answer, done


def weigh(data: Prepared, scores: Tensor, tol: float) -> tuple[Tensor, Tensor]:
    """(sum_i softmax(scores)_i x_i in model space [B, d], done [B] bool); scores [B, N] float64, their maxima 0."""
    (batch, n), d = scores.shape, data.rows.shape[1]
    floor = torch.full((batch,), -cutoff(data, n, tol), dtype=torch.float32, device=scores.device)
    running = Running(batch, d, data.shift, data.unit, scores.device)
    chunk = chunk_rows(batch, d)
    for start in range(0, n, chunk):
        part = slice(start, min(start + chunk, n))
        given = scores[:, part].float().contiguous()
        running.merge(*weighted_sum(given, data.half[part], floor, data.rows[part]), last=part.stop == n)
    centred = running.mean * data.unit - data.shift
    error = weighted_error(data, running.state, centred)
    return running.mean, error <= _allowed(data, running.mean, tol)


def _allowed(data: Prepared, mean: Tensor, tol: float) -> Tensor:
    """What contract 1 allows, [B] in centred units, for means [B, d] in model space."""
    return tol * (mean.norm(dim=1) * data.unit).clamp_min(least_scale(data))


def chunk_rows(batch: int, d: int) -> int:
    """Rows whose logits and partial sums are held at a time: a whole number of splits."""
    by_sums = _SUMS // (max(1, batch) * d)
    return max(1, min(_LOGITS // max(1, batch) // SPLIT, by_sums, ROWS // SPLIT)) * SPLIT


def _nearest(best: tuple[Tensor, Tensor], out: Tensor, start: int, k: int) -> tuple[Tensor, Tensor]:
    """The k largest logits so far and their rows, best first; of rows of weight 0 the lowest."""
    values, rows = out.topk(min(k, out.shape[1]), dim=1)
    few = values[:, -1].isneginf()  # that see fewer rows: topk is free to take any of the others
    if few.any():
        rows[few] = out[few].argsort(dim=1, descending=True, stable=True)[:, : values.shape[1]]
        values = out.gather(1, rows)
    values, rows = torch.cat([best[0], values.double()], 1), torch.cat([best[1], rows + start], 1)
    chosen = values.argsort(dim=1, descending=True, stable=True)[:, :k]
    return values.gather(1, chosen), rows.gather(1, chosen)


def _settled(request: Request, rows: Tensor, log_sum: Tensor) -> tuple[Tensor, Tensor]:
    """The topk of `rows` [B, M] by their exact logits."""
    width = rows.shape[1]
    queries = torch.arange(len(rows), device=rows.device).repeat_interleave(width)
    distances = pair_distances(request.x, request.rows, queries, rows.flatten())
    values = -distances * request.inv[queries] / 2 + request.bias_of(queries, rows.flatten())
    values = values.unflatten(0, rows.shape)
    return heaviest(values, rows, log_sum, request.topk)
