"""Gaussian mean shift: the iteration x <- r(x; sigma), whose fixed points are the modes of the smoothed data."""

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geodiff.base.answers import check_answer
from geodiff.base.arguments import check_finite, check_integer, check_number, check_reals, check_sigma, check_tensor
from geodiff.base.denoiser_type import Denoiser
from geodiff.base.dtypes import PRECISE

__all__ = ["MERGE", "MeanShift", "mean_shift"]

#: Fixed points nearer than this many sigma count as one mode.
MERGE = 0.1


@dataclass(frozen=True, eq=False)
class MeanShift:
    """Where each start ended, and the modes among the ends.

    points     [B, *shape]  the ends
    shift      [B]          |r(x; sigma) - x| of the last step, sigma the last level
    converged  [B]          bool: shift <= tol sigma, so that the end is a fixed point
    iterations [B]          int64, denoiser evaluations of this point, over all levels
    modes      [M, *shape]  fixed points, one of each group, the one of the largest group first
    labels     [B]          int64, the mode of each point; -1 where it has not converged
    counts     [M]          int64, points in each group: falls
    """

    points: Tensor
    shift: Tensor
    converged: Tensor
    iterations: Tensor
    modes: Tensor
    labels: Tensor
    counts: Tensor


@torch.no_grad()
def mean_shift(
    denoiser: Denoiser,
    x: Tensor,
    sigma: float | Tensor | Sequence[float],
    *,
    tol: float = 1e-4,
    max_iterations: int = 1000,
) -> MeanShift:
    """x <- r(x; sigma) until |r(x; sigma) - x| <= tol sigma: for the optimal denoiser, Gaussian mean shift.

    r(x; sigma) - x is the mean-shift vector with a Gaussian kernel of bandwidth sigma (arXiv 2305.19947; Comaniciu &
    Meer, 2002), and sigma^2 times the gradient of log p_sigma, which never falls along the iteration. A fixed point is
    a mode of p_sigma, unless the start lies on a saddle, or so near it that the first shift is below the tolerance
    (which annealing on data with an exact symmetry does). An Euler step of the probability-flow ODE from sigma
    to sigma' goes the same way, 1 - sigma'/sigma of the length.

    denoiser       r(x, sigma) -> [B, *shape]; for one class: functools.partial(denoiser, class_labels=k)
    x              [B, *shape] float32 or float64, the starts; left as they are
    sigma          a number: fixed bandwidth. Falling levels [L], all > 0 (`geodiff.schedules.karras(n)[:-1]`): annealed
                   mean shift, each level run from where the one before ended
    tol            > 0, in units of sigma. The iteration converges linearly: ends may be several tol sigma off
    max_iterations per point and level; 1 takes one step at each level

    Points that have converged are not evaluated again at that level. Ends within 0.1 sigma of one, the mode, form
    a group. Beyond the denoiser's memory: a few times x. Raises TypeError or ValueError that names the argument.
    """
    x = check_tensor(x, "x", PRECISE)
    if x.ndim < 2:
        raise ValueError(f"x: expected shape [B, *shape], found {list(x.shape)}; allowed any B >= 0")
    check_finite(x, "x")
    levels = _levels(sigma)
    tol = check_number(tol, "tol", 0.0)
    max_iterations = check_integer(max_iterations, "max_iterations", 1)

    points = x.detach().clone()
    shift = points.new_full((len(x),), math.inf)
    iterations = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for level in levels:
        active = torch.arange(len(x), device=x.device)
        for _ in range(max_iterations):
            if len(active) == 0:
                break
            before = points[active]
            after = _evaluate(denoiser, before, level)
            points[active] = after
            shift[active] = (after - before).flatten(1).norm(dim=1)
            iterations[active] += 1
            active = active[shift[active] > tol * level]
    converged = shift <= tol * levels[-1]
    leaders, labels, counts = _group(points, shift, converged, MERGE * levels[-1])
    return MeanShift(points, shift, converged, iterations, points[leaders], labels, counts)


def _evaluate(denoiser: Denoiser, x: Tensor, sigma: float) -> Tensor:
    denoised = denoiser(x, x.new_tensor(sigma, dtype=torch.float64))
    return check_answer(denoised, x, "denoiser", f"sigma = {sigma:g}").to(x.dtype)


def _group(points: Tensor, shift: Tensor, converged: Tensor, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """Leaders [M], labels [B] and counts [M]: each fixed point joins the first leader within the radius.

    The points closest to convergence lead. One leader is compared with all that are left at a time: O(B d) memory.
    """
    flat = points.flatten(1)
    labels = torch.full((len(flat),), -1, dtype=torch.int64, device=flat.device)
    left = shift.argsort(stable=True)
    left = left[converged[left]]
    leaders: list[int] = []
    while len(left):
        near = (flat[left] - flat[left[0]]).norm(dim=1) <= radius
        labels[left[near]] = len(leaders)
        leaders.append(int(left[0]))
        left = left[~near]
    counts = torch.bincount(labels[labels >= 0], minlength=len(leaders))
    order = counts.argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    labels[labels >= 0] = rank[labels[labels >= 0]]
    return torch.tensor(leaders, dtype=torch.int64, device=flat.device)[order], labels, counts[order]


def _levels(sigma: object) -> list[float]:
    if isinstance(sigma, Tensor) and sigma.ndim == 0:
        return [check_sigma(sigma, 1).item()]
    if isinstance(sigma, numbers.Real):
        return [check_sigma(sigma, 1).item()]
    levels = check_sigma(vector := check_reals(sigma, "sigma", "[L]", at_least=1), len(vector))
    if not (levels.diff() < 0).all():
        raise ValueError(
            f"sigma: expected levels that fall strictly, found {levels.tolist()!r:.60}; allowed 80, 40, ..."
        )
    return levels.tolist()
