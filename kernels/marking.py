"""The rows that may count, for what is then made of them in float64: second moments and draws."""

from geodiff.kernels.asked import Asked
from geodiff.kernels.evaluate import chunk_rows, multiply
from geodiff.kernels.prepared import Prepared
from geodiff.kernels.queries import Queries, prepare
from geodiff.kernels.weighted_sum import Marks, softmax


def mark(data: Prepared, asked: Asked, cut: float) -> tuple[Queries, Marks]:
    """Marks every row whose logit may come within `cut` of the largest: one pass over the rows for all queries."""
    queries = prepare(data, asked.x, asked.sigma, n=asked.n, tol=asked.tol)
    batch = len(asked.x)
    marks = Marks.empty(batch, asked.n, queries.centred.device)
    for chunk in asked.chunks(chunk_rows(data, batch)):
        softmax(multiply(data, queries, chunk), data, chunk, queries, marks.after(chunk.rows.start - asked.first), cut)
    return queries, marks
