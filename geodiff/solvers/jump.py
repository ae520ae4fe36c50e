"""ODE-Jump: leave the ODE early and take the denoiser's word for the rest."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from geodiff.base.arguments import check_number
from geodiff.base.denoiser_type import Denoiser
from geodiff.solvers.evaluation import Step
from geodiff.solvers.loop import Callback
from geodiff.solvers.sampling import check_schedule, sample
from geodiff.solvers.trajectory import Trajectory


def jump_levels(sigmas: Tensor | Sequence[float], sigma: float) -> Tensor:
    """The levels of `sigmas` above sigma, then sigma, then 0: float64 [at most S + 2].

    sigma: where to jump from, anywhere in (0, sigmas[0]], on the schedule or between its levels.
    """
    levels = check_schedule(sigmas)
    sigma = check_number(sigma, "sigma", 0.0, levels[0])
    return torch.tensor([*(level for level in levels if level > sigma), sigma, 0.0], dtype=torch.float64, device="cpu")


def ode_jump(
    denoiser: Denoiser,
    noise: Tensor,
    sigmas: Tensor | Sequence[float],
    sigma: float,
    solver: str | Step = "heun",
    callback: Callback | None = None,
    *,
    keep: Literal["all", "end"] = "all",
) -> Trajectory:
    """Solve down to sigma_j, then output r(x_j; sigma_j) (Chen et al., 2305.19947): the evaluations of the solver + 1.

    The step to 0 of every solver is an Euler step, which returns r exactly, so ODE-Jump is `sample` on other levels.
    denoiser, noise, solver, keep, callback as in `sample`; sigmas, sigma as in `jump_levels`.
    Returns a Trajectory: states[-2] is x_j, and states[-1] = denoised[-1] is r_j, the sample. Along one trajectory r_j
    at every j is `Trajectory.denoised`. Raises as `sample` does, and for a sigma outside (0, sigmas[0]].
    """
    return sample(denoiser, noise, jump_levels(sigmas, sigma), solver, keep, callback)
