"""Velocities of flow matching under other couplings of noise and data than the independent one, in plain PyTorch."""

import torch
from torch import Tensor

from geodiff.base.arguments import check_data, check_query, shape_sigma
from geodiff.base.per_point import per_point
from geodiff.paths import Linear
from geodiff.reference.flow import velocity
from geodiff.reference.formula import model_space


def empirical_target(x: Tensor, batch: Tensor, extra: Tensor, t: float | Tensor) -> Tensor:
    """v* of the pool batch + extra, data at t = 1: the training target of Bertrand et al., 2506.03719.

    x      [B, *shape], x_t of the points of the batch, float32 or float64, which is the dtype of the result
    batch  [B, *shape], whose points are in the pool of every query, each its own among them
    extra  [M, *shape], further points; a point that is drawn twice counts twice
    t      a number, 0-d, [B] or [B, 1, ...] within 0 .. 1 but not 1
    """
    pool = torch.cat([model_space(check_data(part), x.dtype) for part in (batch, extra)])
    return velocity(x, pool, t, path=Linear("B"))


def semidiscrete_velocity(x: Tensor, data: Tensor, psi: Tensor, t: float | Tensor) -> Tensor:
    """(x_j - x) / (1 - t), j = argmin_j |x - x_j|^2 / (1 - t) - psi_j, data at t = 1: optimal transport from noise.

    What flow matching with minibatch couplings tends to as batches grow (Tong et al., 2302.00482): straight lines from
    n to the point j whose Laguerre cell argmin_j |n - x_j|^2 - psi_j holds it. psi makes cells as heavy as points.

    x    [B, *shape] float32 or float64, which is the dtype of the result
    psi  [N]
    t    a number, 0-d, [B] or [B, 1, ...] within 0 .. 1 but not 1
    Raises TypeError or ValueError that names the argument.
    """
    data = check_data(data)
    x = check_query(x, data.shape[1:])
    if psi.shape != (len(data),):
        raise ValueError(
            f"psi: expected shape [N] = [{len(data)}], found {list(psi.shape)}; allowed one for each point"
        )
    times = shape_sigma(t, len(x), device=x.device, name="t", what="time")
    if not bool(((times >= 0) & (times < 1)).all()):
        raise ValueError("t: expected times within 0 .. 1, found others; allowed 0 <= t < 1")
    points = model_space(data, x.dtype)
    left = (1 - times).to(x.dtype)
    cost = torch.stack([(query - points).flatten(1).square().sum(1) for query in x]) / left[:, None] - psi.to(x.dtype)
    return (points[cost.argmin(1)] - x) / per_point(left, x)
