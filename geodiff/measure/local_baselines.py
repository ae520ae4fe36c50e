"""Local denoisers as one writes them in PyTorch, float32: what ours are compared with, and faster forms than published.

Each takes data [N, C, H, W] in model space and float32 already, and one query at a time.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from geodiff.reference.forms import Crops, Form, Pairs, Windows

#: The most numbers of a temporary.
_NUMBERS = 2**25

#: name -> what it does, as `geodiff bench --local` lists it.
DESCRIPTIONS = {
    "torch-unfold": "patches by unfold, their squared distances",
    "torch-avg-pool": "squared differences, summed over windows by avg_pool2d with divisor 1",
    "torch-matmul": "squared differences times the mask, a matrix",
}

#: (data, x, sigma) -> r
Peer = Callable[[Tensor, Tensor, float], Tensor]


def peers(form: Form) -> dict[str, Peer]:
    """The ways that compute this form."""
    if isinstance(form, Windows) and not form.circular:
        return {
            "torch-unfold": lambda data, x, sigma: _each(data, x, sigma, lambda q, p: _unfolded(q, p, form.k)),
            "torch-avg-pool": lambda data, x, sigma: _each(data, x, sigma, lambda q, p: _pooled(q, p, form.k)),
        }
    if isinstance(form, Crops):
        return {"torch-avg-pool": lambda data, x, sigma: _crops(data, x, sigma, form.k)}
    if isinstance(form, Pairs):
        mask, temperature = form.matrix.float(), form.temperature
        return {
            "torch-matmul": lambda data, x, sigma: _each(
                data, x, sigma, lambda q, p: ((q - p).square().flatten(1) @ mask / temperature).unflatten(1, q.shape)
            )
        }
    return {}


def known(names: Sequence[str] | None) -> list[str]:
    """The names, or all of them; ValueError for one that is none."""
    for name in names or ():
        if name not in DESCRIPTIONS:
            raise ValueError(f"--peer: expected one of local denoisers, found {name!r}; allowed {list(DESCRIPTIONS)}")
    return list(names or DESCRIPTIONS)


def _each(data: Tensor, x: Tensor, sigma: float, distances: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """sum_i softmax_i(-q_i / 2 sigma^2) x_i with distances of the shape [n, 1 or C, H, W], query by query."""
    parts = data.split(max(1, min(512, _NUMBERS // data[0].numel())))
    out = []
    for query in x:
        weights = (torch.cat([distances(query, part) for part in parts]) / (-2 * sigma**2)).softmax(0)
        weighted = zip(weights.split(len(parts[0])), parts, strict=True)
        out.append(sum(((w * part).sum(0) for w, part in weighted), torch.zeros(())))
    return torch.stack(out)


def _unfolded(query: Tensor, part: Tensor, k: int) -> Tensor:
    """Of patches [n, C k k, H W], as many images at a time as fit."""
    own = F.unfold(query[None], k, padding=k // 2)
    found = [
        (F.unfold(images, k, padding=k // 2) - own).square().sum(1)
        for images in part.split(max(1, _NUMBERS // own.numel()))
    ]
    return torch.cat(found).unflatten(1, (1, *query.shape[1:]))


def _pooled(query: Tensor, part: Tensor, k: int) -> Tensor:
    e = (query - part).square().sum(1, keepdim=True)
    return F.avg_pool2d(e, k, stride=1, padding=k // 2, divisor_override=1)


def _crops(data: Tensor, x: Tensor, sigma: float, k: int) -> Tensor:
    """A posterior for each crop, its weights spread over its pixels, and the mean of the crops over a pixel."""
    parts = data.split(512)
    over = _spread(torch.ones(1, 1, *(size - k + 1 for size in data.shape[-2:])), k)
    out = []
    for query in x:
        logits = torch.cat([_fitting(query, part, k) for part in parts]) / (-2 * sigma**2)
        weighted = zip(logits.softmax(0).split(len(parts[0])), parts, strict=True)
        out.append(sum(((_spread(w, k) * part).sum(0) for w, part in weighted), torch.zeros(())) / over[0])
    return torch.stack(out)


def _fitting(query: Tensor, part: Tensor, k: int) -> Tensor:
    return F.avg_pool2d((query - part).square().sum(1, keepdim=True), k, stride=1, divisor_override=1)


def _spread(weights: Tensor, k: int) -> Tensor:
    return F.avg_pool2d(F.pad(weights, (k - 1,) * 4), k, stride=1, divisor_override=1)
