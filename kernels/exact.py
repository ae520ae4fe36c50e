"""The last resort: every distance in float64 difference form, chunk by chunk."""

import torch

from geodiff.kernels.ranking import heaviest
from geodiff.kernels.refine import all_distances, full_sum
from geodiff.kernels.request import Answer, Request

EXACT = 3
_ELEMENTS = 2**21  # distances at a time


def exact(request: Request) -> Answer:
    """Answers by online softmax in float64."""
    (batch, d), n = request.x.shape, request.n
    rows = request.rows
    top = request.x.new_full((batch,), -torch.inf)
    total, first_moment, squares, biases = (torch.zeros_like(top) for _ in range(4))
    mean = request.x.new_zeros(batch, d)
    kept = request.x.new_empty(batch, 0), torch.empty(batch, 0, dtype=torch.int64, device=rows.device)
    chunk = max(1, _ELEMENTS // max(1, batch))
    for start in range(0, n, chunk):
        stop = min(start + chunk, n)
        logit = -all_distances(request.x, rows[start:stop]) * request.inv[:, None] / 2  # [B, C]
        if request.bias is not None:
            logit = logit + request.bias[..., start:stop]
        high = torch.maximum(top, logit.amax(1))
        gap = torch.where(top == high, 0, top - high)
        below = torch.where(torch.isneginf(logit), -torch.inf, logit - high[:, None])
        scale, p = gap.exp(), below.exp()
        first_moment = (first_moment + gap.nan_to_num(neginf=0) * total) * scale
        first_moment = first_moment + (p * below.nan_to_num(neginf=0)).sum(1)
        total = total * scale + p.sum(1)
        squares = squares * scale.square() + p.square().sum(1)
        if request.bias is not None:
            biases = biases * scale + (p * request.bias[..., start:stop]).masked_fill(p == 0, 0).sum(1)
        mean = mean * scale[:, None] + full_sum(p, rows[start:stop])
        top = high
        if request.topk:
            index = torch.arange(start, stop, device=rows.device).expand(batch, -1)
            values, candidates = torch.cat([kept[0], logit], 1), torch.cat([kept[1], index], 1)
            order = values.argsort(dim=1, descending=True, stable=True)[:, : request.topk]  # ties to the lower row
            kept = values.gather(1, order), candidates.gather(1, order)
    log_sum = top + total.log()
    indices, weights = heaviest(*kept, log_sum, request.topk)
    return Answer(
        mean=(mean / total[:, None] + request.data.shift) / request.data.unit,
        log_sum=log_sum,
        entropy=total.log() - first_moment / total,
        ess=total.square() / squares,
        bias=biases / total,
        indices=indices,
        weights=weights,
        path=torch.full((batch,), EXACT, dtype=torch.int8, device=rows.device),
    )
