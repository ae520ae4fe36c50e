"""The loop around a solver: walk down the noise levels and keep everything on the way."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from geodiff.arguments import check_finite, check_reals, check_tensor
from geodiff.solvers.euler import euler
from geodiff.solvers.graph import replay
from geodiff.solvers.heun import heun
from geodiff.solvers.step import Evaluate, Step
from geodiff.trajectory import Trajectory

SOLVERS: dict[str, Step] = {"euler": euler, "heun": heun}

Denoiser = Callable[[Tensor, Tensor], Tensor]
Callback = Callable[[int, float, Tensor, Tensor], object]


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    noise: Tensor,
    sigmas: Tensor | Sequence[float],
    solver: str | Step = "heun",
    callback: Callback | None = None,
    progress: bool = False,
) -> Trajectory:
    """Solve dx/dsigma = (x - r(x; sigma)) / sigma, the probability-flow ODE, down the levels `sigmas`.

    denoiser  any r(x, sigma) -> [B, *shape], with sigma a 0-d tensor in x's dtype and on its device; an output of
              another floating dtype is converted to x's
    noise     [B, *shape] float32 or float64, which is then the dtype of all states: the state at sigmas[0], so already
              scaled, as sigmas[0] * torch.randn(B, *shape) is
    sigmas    [S + 1], S >= 1, strictly falling, the last may be 0: `geodiff.schedules` makes them
    solver    "euler", "heun", or a function that takes one step (`geodiff.solvers.Step`)
    callback  called as callback(s, sigma_s, x_s, r_s) in each step s = 0..S-1, when r_s is known; x_s and r_s are views
              of what is kept
    progress  show a progress bar on standard error

    Returns a Trajectory of all states and denoiser outputs, on noise's device, its sigmas float64. Nothing here is
    recorded for autograd, as in other samplers; to differentiate, call `euler` or `heun` in a loop of your own, and for
    guidance use torch.enable_grad inside the denoiser.
    Raises TypeError or ValueError that names the argument, with the step where a denoiser's answer is at fault.
    """
    noise = check_tensor(noise, "noise", (torch.float32, torch.float64)).detach()
    if noise.ndim == 0:
        raise ValueError("noise: expected shape [B, *shape], found a single number; allowed any B >= 0")
    check_finite(noise, "noise")
    levels = _levels(sigmas)
    step_of, name = _solver(solver)
    evaluate = _Evaluate(denoiser)

    count = len(levels) - 1
    trajectory_sigmas = torch.tensor(levels, dtype=torch.float64, device=noise.device)
    if callback is None and not progress and isinstance(solver, str):
        done = replay(denoiser, noise, tuple(levels), solver, partial(_walk, step_of, name, levels))
        if done is not None:
            metadata = {"solver": name, "evaluations": str(done.evaluations)}
            return Trajectory(trajectory_sigmas, done.states, done.denoised, metadata)
    states = noise.new_empty(count + 1, *noise.shape)
    outputs = noise.new_empty(count, *noise.shape)
    states[0] = noise
    steps = _track(count, f"{name}, {count} steps") if progress else range(count)
    _walk(step_of, name, levels, evaluate, states, outputs, callback=callback, steps=steps)
    return Trajectory(trajectory_sigmas, states, outputs, {"solver": name, "evaluations": str(evaluate.count)})


def _walk(
    step_of: Step,
    name: str,
    levels: Sequence[float],
    evaluate: Evaluate,
    states: Tensor,
    outputs: Tensor,
    *,
    callback: Callback | None = None,
    steps: Iterable[int] | None = None,
) -> None:
    """All steps from states[0]: writes states[1:] and outputs. Does nothing that cannot be recorded into a graph."""
    for step in range(len(levels) - 1) if steps is None else steps:
        sigma, x, denoised = levels[step], states[step], outputs[step]
        denoised.copy_(evaluate(x, sigma))
        if callback is not None:
            callback(step, sigma, x, denoised)
        following = step_of(evaluate, x, sigma, levels[step + 1], denoised)
        if not isinstance(following, Tensor) or following.shape != x.shape:
            raise ValueError(
                f"solver: expected a next state of shape {list(x.shape)} from {name}, found {_what(following)}; "
                f"allowed the shape of x"
            )
        states[step + 1] = following


class _Evaluate:
    """The user's denoiser as steps call it: sigma made a tensor, the answer checked, evaluations counted."""

    def __init__(self, denoiser: Denoiser) -> None:
        if not callable(denoiser):
            raise TypeError(
                f"denoiser: expected a callable denoiser(x, sigma), found {type(denoiser).__name__}; "
                f"allowed a function or module"
            )
        self.denoiser = denoiser
        self.count = 0

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        denoised = self.denoiser(x, x.new_tensor(sigma))
        self.count += 1
        if not isinstance(denoised, Tensor) or not denoised.is_floating_point():
            raise TypeError(
                f"denoiser: expected a floating tensor at sigma = {sigma:g}, found {_what(denoised)}; "
                f"allowed the denoised x, of x's shape"
            )
        if denoised.shape != x.shape:
            raise ValueError(
                f"denoiser: expected an output of x's shape {list(x.shape)} at sigma = {sigma:g}, "
                f"found {list(denoised.shape)}; allowed no other shape"
            )
        check_finite(denoised, f"denoiser: at sigma = {sigma:g}")
        return denoised.to(x.dtype)


def _levels(sigmas: Tensor | Sequence[float]) -> list[float]:
    levels: list[float] = check_reals(sigmas, "sigmas", "[S + 1]", at_least=2).tolist()
    for high, low in itertools.pairwise(levels):
        if not (math.isfinite(high) and high > low >= 0):
            raise ValueError(
                f"sigmas: expected finite levels that fall strictly, found {high:g} and then {low:g}; "
                f"allowed the last, and no other, to be 0"
            )
    return levels


def _solver(solver: str | Step) -> tuple[Step, str]:
    allowed = ", ".join(SOLVERS) + ", or a step function"
    if isinstance(solver, str):
        if solver not in SOLVERS:
            raise ValueError(f"solver: expected a known name, found {solver!r}; allowed {allowed}")
        return SOLVERS[solver], solver
    if not callable(solver):
        raise TypeError(f"solver: expected a name or a function, found {type(solver).__name__}; allowed {allowed}")
    return solver, getattr(solver, "__name__", type(solver).__name__)


def _what(value: object) -> str:
    return f"a tensor of {value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _track(count: int, description: str) -> Iterable[int]:
    # Imported here: rich takes longer to import than a short run takes, and most callers want no bar.
    from rich.console import Console
    from rich.progress import track

    return track(range(count), description=description, console=Console(stderr=True))
