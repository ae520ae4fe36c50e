"""The loop around a solver: walk down the noise levels and keep everything on the way, or the end."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from geodiff.backends.combination import Term
from geodiff.backends.cost import Cost
from geodiff.base.answers import check_answer
from geodiff.base.arguments import check_finite, check_query_shape, check_reals, check_tensor
from geodiff.base.denoiser_type import Denoiser
from geodiff.base.dtypes import PRECISE
from geodiff.denoiser.along_trajectory import AlongTrajectory
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.denoiser.network_interface import LikeNetwork
from geodiff.paths import Path, check_path
from geodiff.solvers.evaluation import Evaluator, Step
from geodiff.solvers.flow_matching import EvaluateAlong, find_step, levels_of
from geodiff.solvers.graph import is_plain, replay
from geodiff.solvers.latest_levels import STRIDE
from geodiff.solvers.loop import Callback, Places, Walk
from geodiff.solvers.registry import find_solver
from geodiff.solvers.trajectory import Trajectory
from geodiff.solvers.verifying import Verified


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    noise: Tensor,
    sigmas: Tensor | Sequence[float],
    solver: str | Step = "heun",
    keep: Literal["all", "end"] = "all",
    callback: Callback | None = None,
    *,
    progress: bool = False,
    afs: bool = False,
    path: Path | None = None,
    conditions: Mapping[str, Any] | None = None,
    verify: bool = False,
) -> Trajectory:
    """Solve dx/dsigma = (x - r(x; sigma)) / sigma, the probability-flow ODE, down the levels `sigmas`.

    With a path, solve dx/dt = v(x, t) = alpha' r + sigma' (x - alpha r) / sigma, r = r(x / alpha; sigma / alpha): flow
    matching. Then `sigmas` are times of the path, from anywhere on it towards the data, and states are its x_t. On the
    linear path Euler's steps are those in sigma; second-order methods average velocities of another variable.

    denoiser  any r(x, sigma) -> [B, *shape], with sigma a 0-d tensor in x's dtype and on its device; an output of
              another floating dtype is converted to x's
    noise     [B, *shape] float32 or float64, which is then the dtype of all states: the state at sigmas[0], so already
              scaled, as sigmas[0] * torch.randn(B, *shape) is
    sigmas    [S + 1], S >= 1, strictly falling, the last may be 0: `geodiff.schedules` makes them
    solver    a name in `geodiff.solvers.SOLVERS`, or a function that takes one step (`geodiff.solvers.Step`)
    keep      "all": states and outputs of every level. "end": states [1, B, *shape] is the last one, denoised is None,
              and memory a few times the batch's whatever S is; a step function of your own then sees the latest 3
              levels before the present one
    callback  called as callback(s, sigma_s, x_s, r_s) in each step s = 0..S-1, when r_s is known; x_s and r_s are views
              of what is kept, which keep="end" soon writes over
    progress  show a progress bar on standard error
    path      one of `geodiff.paths`; the linear one takes all solvers and "midpoint", others euler, heun and midpoint
    conditions  keyword arguments of every evaluation, such as class_labels or exclude
    afs       the analytical first step: r = 0, so the direction x / sigma, instead of an evaluation at sigmas[0], where
              data are lost in the noise (Dockhorn et al., 2210.05475). Saves one evaluation; denoised[0] is then 0
    verify    compute every r again in float64, from all data and nothing else, and raise ArithmeticError where one is
              off by more than contract 1 allows. For an OptimalDenoiser; takes many times as long

    Every state is built where it is kept: beyond the trajectory, only what the denoiser allocates; and the optimal
    denoiser writes r, or the update that takes it, straight to where it is kept (`OptimalDenoiser.combine`).
    Returns a Trajectory on noise's device, its sigmas float64, its `cost` what each evaluation took. Nothing here is
    recorded for autograd, as in other samplers; to differentiate, call a step function in a loop of your own, and for
    guidance use torch.enable_grad inside the denoiser.
    Raises TypeError or ValueError that names the argument, with the step where a denoiser's answer is at fault.
    """
    noise = check_tensor(noise, "noise", PRECISE).detach()
    if noise.ndim == 0:
        raise ValueError("noise: expected shape [B, *shape], found a single number; allowed any B >= 0")
    check_finite(noise, "noise")
    if isinstance(denoiser, LikeNetwork):
        check_query_shape(noise, denoiser.shape, name="noise")  # here: the denoiser would call it x
    path = None if path is None else check_path(path)
    conditions = _checked(conditions)
    given = check_reals(sigmas, "sigmas", "[S + 1]", at_least=2)
    levels = check_schedule(given) if path is None else levels_of(path, given)
    count = len(levels) - 1
    if afs and count < 2:
        raise ValueError("afs: expected a step that evaluates, found one step; allowed two or more levels above 0")
    step_of, name = find_solver(solver) if path is None else find_step(solver, path)
    if keep not in ("all", "end"):
        raise ValueError(f"keep: expected what to keep of the trajectory, found {keep!r:.60}; allowed 'all', 'end'")
    evaluate = _evaluator(denoiser, conditions, path, verify=verify)
    trajectory_sigmas = given.to(noise.device)
    places = Places.of(count, keep)

    plain = not (afs or path or conditions or verify) and isinstance(solver, str)
    if callback is None and not progress and plain:
        done = replay(
            denoiser,
            noise,
            levels,
            solver,
            places,
            lambda recorded, states, outputs: Walk(levels, states, outputs).run(step_of, recorded),
        )
        if done is not None:
            metadata = {"solver": name, "evaluations": str(done.evaluations)}
            return _kept(keep, trajectory_sigmas, Walk(levels, done.states, done.outputs), metadata)
    states = noise.new_empty(places.states, *noise.shape)
    outputs = noise.new_empty(places.outputs, *noise.shape)
    states[0] = noise
    steps = _track(count, f"{name}, {count} steps") if progress else None
    told = None if callback is None else _told_times(callback, given.tolist())
    walk = Walk(levels, states, outputs, afs)
    walk.run(step_of, evaluate, callback=told, steps=steps)
    metadata = {"solver": name, "evaluations": str(evaluate.count)}
    if afs:
        metadata["first_step"] = "analytical"
    if path is not None:
        metadata["path"] = repr(path)
    return _kept(keep, trajectory_sigmas, walk, metadata, evaluate.costs)


def _checked(conditions: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """conditions; TypeError for anything but keyword arguments by their names."""
    if conditions is None:
        return {}
    if not isinstance(conditions, Mapping):
        raise TypeError(
            f"conditions: expected names and values, found {type(conditions).__name__} {conditions!r:.60}; "
            f"allowed a dict such as {{'class_labels': labels}}, or None"
        )
    return conditions


def _kept(keep: str, sigmas: Tensor, walk: Walk, metadata: dict[str, str], cost: Sequence[Cost] = ()) -> Trajectory:
    """Of a walk that is at its end what is asked for."""
    if keep == "all":
        return Trajectory(sigmas, walk.states, walk.outputs, metadata, list(cost))
    end = walk.state(len(walk.levels) - 1)[None].clone()  # the other places are let go
    return Trajectory(sigmas, end, None, metadata, list(cost))  # type: ignore[arg-type]  # see the field


@torch.no_grad()
def go_on(denoiser: OptimalDenoiser, walk: Walk, solver: str, *, first: int, after: Callable[[int], object]) -> None:
    """Fills the states and outputs of a walk as `sample` would from `first` on, a multiple of STRIDE: see `Walk.run`.

    At every STRIDE-th level it forgets what evaluations remember: from there on bits do not depend on what came before.
    """
    step_of, _ = find_solver(solver)
    evaluate = _EvaluateOptimal(denoiser, {})

    def then(step: int) -> None:
        if step % STRIDE == 0:
            evaluate.forget()
        after(step)

    walk.run(step_of, evaluate, first=first, after=then)


def _told_times(callback: Callback, given: list[float]) -> Callback:
    """The callback, told the levels or times as `sample` was given them."""
    return lambda step, _, x, denoised: callback(step, given[step], x, denoised)


def _evaluator(denoiser: Denoiser, conditions: Mapping[str, Any], path: Path | None, *, verify: bool) -> Evaluator:
    evaluate: Evaluator = _Evaluate(denoiser, conditions)
    if is_plain(denoiser):
        evaluate = _EvaluateOptimal(denoiser, conditions)
    if verify:
        evaluate = Verified(evaluate, denoiser, conditions)
    if path is None:
        return evaluate
    return EvaluateAlong(evaluate, path.in_convention("A"), precise=is_plain(denoiser))


class _Evaluate(Evaluator):
    """The user's denoiser as steps call it: sigma made a tensor, the answer checked, evaluations counted."""

    def __init__(self, denoiser: Denoiser, conditions: Mapping[str, Any]) -> None:
        if not callable(denoiser):
            raise TypeError(
                f"denoiser: expected a callable denoiser(x, sigma), found {type(denoiser).__name__}; "
                f"allowed a function or module"
            )
        self.denoiser, self.conditions = denoiser, conditions
        self._costs: list[Cost] = []

    @property
    def costs(self) -> list[Cost]:
        return self._costs

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        denoised = self.denoiser(x, x.new_tensor(sigma), **self.conditions)
        self.count += 1
        denoised = check_answer(denoised, x, "denoiser", f"sigma = {sigma:g}")
        self._costs.append(Cost({"denoiser": x.shape[0]}, sigma=sigma))
        return denoised.to(x.dtype)


class _EvaluateOptimal(_Evaluate):
    """The optimal denoiser, whose answers need no check: it refuses what it cannot answer."""

    def __init__(self, denoiser: OptimalDenoiser, conditions: Mapping[str, Any]) -> None:
        super().__init__(denoiser, conditions)
        self._along = AlongTrajectory(denoiser, conditions)

    def forget(self) -> None:
        """Evaluates from now on as if nothing had been evaluated before."""
        self._along.forget()

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        if x.dtype not in PRECISE or (torch.is_grad_enabled() and x.requires_grad):  # in a step function of a user's
            return super().__call__(x, sigma)
        return self.combine(x, sigma, 1.0, (), torch.empty_like(x))

    def combine(self, x: Tensor, sigma: float, gain: float, terms: Sequence[Term], out: Tensor | None) -> Tensor:
        if out is None:
            return super().combine(x, sigma, gain, terms, out)
        self.count += 1
        self._costs.append(self._along.combine(x, sigma, gain, terms, out))
        return out


def check_schedule(sigmas: Tensor | Sequence[float]) -> tuple[float, ...]:
    """sigmas as floats [S + 1], S >= 1, strictly falling, the last may be 0; TypeError or ValueError for others."""
    levels: tuple[float, ...] = tuple(check_reals(sigmas, "sigmas", "[S + 1]", at_least=2).tolist())
    for high, low in itertools.pairwise(levels):
        if not (math.isfinite(high) and high > low >= 0):
            raise ValueError(
                f"sigmas: expected finite levels that fall strictly, found {high:g} and then {low:g}; "
                f"allowed the last, and no other, to be 0"
            )
    return levels


def _track(count: int, description: str) -> Iterable[int]:
    # Imported here: rich takes longer to import than a short run takes, and most callers want no bar.
    from rich.console import Console
    from rich.progress import track

    return track(range(count), description=description, console=Console(stderr=True))
