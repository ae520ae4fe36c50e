"""GITS: noise levels chosen by the geometry of trajectories, with a dynamic programme over the levels of a teacher."""

from collections.abc import Sequence

import torch
from torch import Tensor

from geodiff.base.arguments import check_integer, check_number
from geodiff.base.denoiser_type import Denoiser
from geodiff.schedules import karras
from geodiff.solvers.evaluation import Step
from geodiff.solvers.sampling import sample
from geodiff.solvers.trajectory import Trajectory

#: What `gits` tries for gamma. The paper's 1.15 among them: which is best depends on the model and the number of steps.
GAMMAS = (1.0, 1.05, 1.1, 1.15, 1.2)


def gits(
    denoiser: Denoiser,
    noise: Tensor,
    steps: int,
    *,
    teacher_sigmas: Tensor | Sequence[float] | None = None,
    teacher_solver: str | Step = "heun",
    gamma: float | Sequence[float] = GAMMAS,
) -> Tensor:
    """The `steps` + 1 of the teacher's levels that an Euler solver is best sent over, float64 [steps + 1].

    Chen et al., On the Trajectory Regularity of ODE-based Diffusion Sampling, ICML 2024 (2405.11326). noise [B, *shape]
    is a small batch of starts (trajectories of one model are alike); teacher_sigmas defaults to 61 Karras levels,
    80 .. 0.002; steps in 1 .. their number - 1; gamma as in `gits_search`. Other arguments as in `sample`.
    """
    if len(noise) == 0:
        raise ValueError("noise: expected starts to choose levels by, found B = 0; allowed B >= 1")
    sigmas = karras(61)[:-1] if teacher_sigmas is None else teacher_sigmas
    return gits_search(denoiser, sample(denoiser, noise, sigmas, teacher_solver), steps, gamma=gamma)[0]


def gits_search(
    denoiser: Denoiser, teacher: Trajectory, steps: int, *, gamma: float | Sequence[float] = GAMMAS
) -> tuple[Tensor, float]:
    """Levels [steps + 1] of a teacher's trajectory, and the gamma they were found with.

    Of several gamma the one whose Euler trajectory from the teacher's start ends nearest to the teacher's end: `steps`
    evaluations each. Raises as `gits_costs` and `gits_schedule` do, ValueError also for an empty gamma.
    """
    costs = _costs(teacher, "teacher")
    gammas = [float(one) for one in gamma] if isinstance(gamma, Sequence) else [gamma]
    if not gammas:
        raise ValueError("gamma: expected one number or several, found none; allowed gamma > 0")
    schedules = [gits_schedule(teacher.sigmas, costs, steps, gamma=one) for one in gammas]
    if len(schedules) == 1:
        return schedules[0], gammas[0]

    def missed(sigmas: Tensor) -> float:
        end = sample(denoiser, teacher.states[0], sigmas, "euler", keep="end").states[-1]
        return (end - teacher.states[-1]).flatten(1).double().norm(dim=1).mean().item()

    best = min(range(len(gammas)), key=[missed(sigmas) for sigmas in schedules].__getitem__)
    return schedules[best], gammas[best]


def gits_costs(trajectory: Trajectory) -> Tensor:
    """c[i, j] = mean_b |x_i + (sigma_j - sigma_i) eps_i - x_j|, i < j: what one Euler step from i to j misses by.

    Returns float64 [S + 1, S + 1] on the CPU, infinite for j <= i. Memory: a few states. Raises ValueError for a
    trajectory that kept its end alone, or of no starts.
    """
    return _costs(trajectory, "trajectory")


def _costs(trajectory: Trajectory, name: str) -> Tensor:
    kept, levels = len(trajectory.states), len(trajectory.sigmas)
    if kept != levels:
        raise ValueError(
            f"{name}: expected one that keeps all states, found {kept} of {levels}; allowed sample(..., keep='all')"
        )
    if trajectory.states.shape[1] == 0:
        raise ValueError(f"{name}: expected starts to choose levels by, found B = 0; allowed B >= 1")
    sigmas: list[float] = trajectory.sigmas.tolist()
    costs = torch.full((len(sigmas), len(sigmas)), torch.inf, dtype=torch.float64, device="cpu")
    for i, (x, denoised) in enumerate(zip(trajectory.states, trajectory.denoised, strict=False)):
        for j in range(i + 1, len(sigmas)):
            missed = torch.lerp(denoised, x, sigmas[j] / sigmas[i]).sub_(trajectory.states[j])
            costs[i, j] = missed.flatten(1).norm(dim=1).double().mean()
    return costs


def gits_schedule(sigmas: Tensor, costs: Tensor, steps: int, *, gamma: float = 1.15) -> Tensor:
    """V[i, 1] = c[i, end], V[j, k] = min_{i > j} c[j, i] + gamma V[i, k - 1]: the path of V[0, steps], [steps + 1].

    sigmas [S + 1], costs [S + 1, S + 1] as of `gits_costs`; steps 1..S; gamma > 0 weighs errors made later.
    The first level is sigmas[0], the last sigmas[-1]. Raises TypeError or ValueError that names the argument.
    """
    last = len(sigmas) - 1
    steps = check_integer(steps, "steps", 1, last)
    gamma = check_number(gamma, "gamma", 0.0)
    if costs.shape != (last + 1, last + 1):
        raise ValueError(
            f"costs: expected shape {[last + 1, last + 1]}, found {list(costs.shape)}; "
            f"allowed a square matrix over sigmas"
        )
    if bool(costs.isnan().any()):
        raise ValueError("costs: expected numbers, found NaN; allowed also infinite ones")
    value = costs[:, last]
    choices: list[Tensor] = []
    for _ in range(steps - 1):
        value, chosen = (costs + gamma * value).min(1)
        choices.append(chosen)
    path = [0]
    for chosen in reversed(choices):
        path.append(int(chosen[path[-1]]))
    return sigmas[[*path, last]].to("cpu", torch.float64)
