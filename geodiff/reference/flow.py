"""The optimal velocity of flow matching in pure PyTorch: the oracle of `OptimalDenoiser.velocity`.

Written in the coordinates of the path, so that no end is special: the logits are those of x = alpha x_i + sigma n,
which are defined where alpha is 0, and x - alpha x_i is taken before it is summed, so that nothing cancels where sigma
is small.
"""

import torch
from torch import Tensor

from geodiff.base.arguments import (
    check_data,
    check_exclude,
    check_finite,
    check_log_weights,
    check_query,
    shape_sigma,
)
from geodiff.paths import LINEAR, Path
from geodiff.reference.formula import tiles


def velocity(
    x: Tensor,
    data: Tensor,
    t: float | Tensor,
    *,
    path: Path = LINEAR,
    log_weights: Tensor | None = None,
    exclude: Tensor | None = None,
) -> Tensor:
    """v = sum_i w_i (alpha' x_i + sigma' (x - alpha x_i) / sigma), w_i ~ pi_i exp(-|x - alpha x_i|^2 / 2 sigma^2).

    x     [B, *shape] float32 or float64; everything is computed and returned in its dtype
    t     a number, 0-d, [B] or [B, 1, ...]; on the linear path A 0 < t <= 1
    Other arguments as in `posterior`. O(N) numbers for one query after the other.
    Raises TypeError or ValueError that names the argument.
    """
    data = check_data(data)
    x = check_query(x, data.shape[1:])
    scales = path.at(shape_sigma(t, len(x), device=x.device, name="t", what="time"))
    if not all(bool(scale.isfinite().all()) for scale in (*scales, scales.slope)):
        raise ValueError(f"t: expected times at which {path.name} has a velocity; allowed not where the data are")
    prior = x.new_zeros(len(data), dtype=torch.float64)
    if log_weights is not None:
        prior = check_log_weights(log_weights, len(data), device=x.device)
    left_out = [-1] * len(x) if exclude is None else check_exclude(exclude, len(x), len(data)).tolist()
    found = torch.empty_like(x)
    for b, (query, *numbers) in enumerate(zip(x.flatten(1), *scales, strict=True)):
        alpha, sigma, d_alpha, d_sigma = (number.to(x.dtype) for number in numbers)
        logits = prior.to(x.dtype).clone()
        for start, points in tiles(data, x.dtype):
            check_finite(points, "data", first_row=start)
            away = (query - alpha * points).square().sum(1) / (2 * sigma.square())
            logits[start : start + len(points)] -= away
        if left_out[b] >= 0:
            logits[left_out[b]] = -torch.inf
        weights = logits.softmax(0)
        total = torch.zeros_like(query)
        for start, points in tiles(data, x.dtype):
            one = weights[start : start + len(points)]
            total += d_alpha * (one @ points) + d_sigma / sigma * (one @ (query - alpha * points))
        found[b] = total.reshape(x.shape[1:])
    return found
