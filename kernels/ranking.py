"""The k rows with the largest exact logits, ties to the lower row."""

import torch
from torch import Tensor


def heaviest(logits: Tensor, rows: Tensor, log_sum: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(indices, weights) [B, k] of the k largest logits [B, M] float64 of rows [B, M]; rows < 0 are no rows."""
    if k == 0:
        return rows[:, :0], logits[:, :0]
    by_row = rows.argsort(dim=1, stable=True)
    logits, rows = logits.gather(1, by_row), rows.gather(1, by_row)
    # Rows that are none sort behind those of weight 0.
    absent = (rows < 0).to(torch.int8)
    order = logits.argsort(dim=1, descending=True, stable=True)
    order = order.gather(1, absent.gather(1, order).argsort(dim=1, stable=True))[:, :k]
    logits = logits.gather(1, order)
    return rows.gather(1, order), (logits - log_sum[:, None]).exp()
