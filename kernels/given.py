"""The weighted sum for logits that a caller has: the dense pass without its first product."""

import torch
from torch import Tensor

from geodiff.kernels.asked import Asked
from geodiff.kernels.bounds import cutoff
from geodiff.kernels.decide import decide
from geodiff.kernels.evaluate import chunk_rows
from geodiff.kernels.merge import Running
from geodiff.kernels.prepared import Prepared
from geodiff.kernels.queries import BASE_ERROR, EXACT, HOPELESS, NOISE, prepare
from geodiff.kernels.seen import Seen
from geodiff.kernels.weighted_sum import Marks


def weighted_mean(data: Prepared, scores: Tensor, tol: float, mean: Tensor) -> Tensor:
    """mean [B, d] = sum_i softmax(scores)_i x_i in model space; done [B] bool: where that is within the contract.

    scores [B, N] float64, their maxima 0.
    """
    (batch, n), d = scores.shape, data.rows.shape[1]
    origin = data.shift / data.unit
    # A query at the origin of centred units has digits 0, which leave nothing over.
    x = torch.full((batch, d), origin, dtype=torch.float64, device=scores.device)
    asked = Asked(0, n, x, x.new_ones(batch), Seen(), tol)
    queries = prepare(data, x, asked.sigma, n=n, tol=tol)
    for place in (BASE_ERROR, NOISE, HOPELESS):  # whatever float32 products of such data would do
        queries.numbers[place] = 0
    queries.best.zero_()
    marks, running = Marks.empty(batch, n, scores.device), Running(data, queries, mean, cutoff(data, n, tol))
    for chunk in asked.chunks(chunk_rows(data, batch)):
        given, here = scores[:, chunk.rows].contiguous(), marks.after(chunk.rows.start)
        running.take(given, chunk, here, -1, last=chunk.rows.stop == n)
    decide(asked, running, -1)
    return queries.path != EXACT
