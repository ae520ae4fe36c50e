"""Trajectories along a path of flow matching: its times as levels, its solvers, and r where the state is x_t."""

import itertools

from torch import Tensor

from geodiff.backends.cost import Cost
from geodiff.base.arguments import SIGMA_MIN
from geodiff.denoiser.velocity import LARGEST
from geodiff.paths import Linear, Path
from geodiff.solvers.evaluation import Evaluator, Step
from geodiff.solvers.registry import ALLOWED, find_solver
from geodiff.solvers.steps.along_path import METHODS, along_path


def levels_of(path: Path, given: Tensor) -> tuple[float, ...]:
    """The times since the data, falling, for times [S + 1] that run from the noise towards the data."""
    levels: tuple[float, ...] = tuple(path.since_data(given).tolist())
    towards = "fall" if path.convention == "A" else "rise"
    for k, (high, low) in enumerate(itertools.pairwise(levels)):
        if not high > low >= 0:
            raise ValueError(
                f"sigmas: expected times of the path {path.name} that {towards} strictly, found {given[k]:g} and then "
                f"{given[k + 1]:g}; allowed within 0 .. 1, the last, and no other, {path.data_end:g}"
            )
    for level, time in zip(levels, given.tolist(), strict=True):
        scales = path.in_convention("A").at(level)
        usable = all(bool(scale.isfinite()) for scale in scales) and bool(scales.level >= SIGMA_MIN)
        if level > 0 and not usable:
            raise ValueError(f"sigmas: expected times at which the path {path.name} has a velocity, found {time:g}")
    return levels


def find_step(solver: str | Step, path: Path) -> tuple[Step, str]:
    """The step in the time since the data, and its name. Raises ValueError for one that the path does not have."""
    if isinstance(path, Linear) and not (isinstance(solver, str) and solver == "midpoint"):
        return find_solver(solver)
    if isinstance(solver, str) and solver in METHODS:
        return along_path(path.in_convention("A"), solver), solver
    if isinstance(solver, str):
        allowed = ", ".join(METHODS)
        raise ValueError(
            f"solver: expected one that follows any path, found {solver!r}; allowed {allowed}, and on the linear path "
            f"{ALLOWED}"
        )
    return find_solver(solver)


class EvaluateAlong(Evaluator):
    """E[x_0 | x_t = x] = r(x / alpha; sigma / alpha) at the time u since the data, by an evaluator of r.

    path     in convention A
    precise  x / alpha in float64, which the optimal denoiser takes: rounded, it would be another query
    """

    def __init__(self, inner: Evaluator, path: Path, *, precise: bool) -> None:
        self._inner, self._path, self._precise = inner, path, precise

    @property
    def costs(self) -> list[Cost]:
        return self._inner.costs

    def __call__(self, x: Tensor, u: float) -> Tensor:
        scales = self._path.at(u)
        level = float(scales.level.clamp(max=LARGEST))  # pure noise: see geodiff.denoiser.velocity
        moved = (x.double() if self._precise else x) * (level / float(scales.sigma))
        denoised = self._inner(moved, level)
        self.count += 1
        return denoised.to(x.dtype)
