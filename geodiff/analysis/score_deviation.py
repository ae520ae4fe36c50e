"""How far a learned denoiser is from the optimal one, along the trajectories that both draw from the same noise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geodiff.base.answers import check_answer
from geodiff.base.denoiser_type import Denoiser
from geodiff.solvers import sample
from geodiff.solvers.trajectory import Trajectory

__all__ = ["Denoiser", "ScoreDeviation", "score_deviation"]


@dataclass(frozen=True, eq=False)
class ScoreDeviation:
    """Four distances at each level of a schedule and for each noise; x^ is the learned trajectory, x* the optimal one.

    sigmas      [S]    the levels that a step starts from
    at_learned  [S, B] (a) |r_theta(x^) - r*(x^)|
    at_optimal  [S, B] (b) |r_theta(x*) - r*(x*)|
    states      [S, B] (c) |x^ - x*|
    denoised    [S, B] (d) |r_theta(x^) - r*(x*)|
    learned, optimal   the two trajectories

    The score deviation proper is (a) or (b) divided by sigma^2, as score = (r - x) / sigma^2.
    """

    sigmas: Tensor
    at_learned: Tensor
    at_optimal: Tensor
    states: Tensor
    denoised: Tensor
    learned: Trajectory
    optimal: Trajectory


@torch.no_grad()
def score_deviation(
    learned: Denoiser,
    optimal: Denoiser,
    noise: Tensor,
    sigmas: Tensor | Sequence[float],
    solver: str = "euler",
    progress: Callable[[], object] = lambda: None,
) -> ScoreDeviation:
    """(a) |r_theta(x^) - r*(x^)|, (b) |r_theta(x*) - r*(x*)|, (c) |x^ - x*|, (d) |r_theta(x^) - r*(x*)|, per level.

    x^ and x* solve the probability-flow ODE of the learned and of the optimal denoiser from the same noise [B, *shape].
    Arguments as `geodiff.sample` takes them; progress is called 4 times a step. Euclidean distances over a whole point,
    in the units of the data. Source: arXiv 2305.19947, section on score deviation, and its authors' analysis code.
    """

    def counted(denoiser: Denoiser, name: str) -> Denoiser:
        def call(x: Tensor, sigma: Tensor) -> Tensor:
            # Of another shape it would broadcast into distances that nobody asked for.
            answer = check_answer(denoiser(x, sigma), x, name, f"sigma = {sigma:g}")
            progress()
            return answer

        return call

    learned, optimal = counted(learned, "learned"), counted(optimal, "optimal")
    hat = sample(learned, noise, sigmas, solver)
    star = sample(optimal, noise, sigmas, solver)
    at_learned, at_optimal = [], []
    for x_hat, x_star, r_hat, r_star, sigma in zip(
        hat.states[:-1], star.states[:-1], hat.denoised, star.denoised, hat.sigmas[:-1].to(noise.dtype), strict=True
    ):
        at_learned.append(_distance(r_hat, optimal(x_hat, sigma)))
        at_optimal.append(_distance(learned(x_star, sigma), r_star))
    return ScoreDeviation(
        sigmas=hat.sigmas[:-1],
        at_learned=torch.stack(at_learned),
        at_optimal=torch.stack(at_optimal),
        states=torch.stack([_distance(*pair) for pair in zip(hat.states[:-1], star.states[:-1], strict=True)]),
        denoised=torch.stack([_distance(*pair) for pair in zip(hat.denoised, star.denoised, strict=True)]),
        learned=hat,
        optimal=star,
    )


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """|a - b| of each point, [B]; in float64, as the points are large and their difference may be small."""
    return (a.double() - b.double()).flatten(1).norm(dim=1)
