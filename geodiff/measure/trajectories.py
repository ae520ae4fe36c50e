"""Whole trajectories timed: ours kept, the end alone and without memory, and loops around a PyTorch denoiser."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Literal

import torch
from torch import Tensor

from geodiff import reference
from geodiff.base.denoiser_type import Denoiser
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.measure.baselines import made, model_points
from geodiff.measure.benchmark import Timing, take_turns
from geodiff.measure.stopwatch import settled
from geodiff.reference.contract import largest_error, largest_norm
from geodiff.schedules import karras
from geodiff.solvers import Trajectory, sample

#: Solver and steps of the rows of a table.
WALKS = (("heun", 18), ("euler", 100), ("dpmpp2m", 10))
#: Samples of a batch whose denoised images are compared with float64.
CHECKED = 2
TORCH = "torch loop"


@dataclass
class Walks:
    """One solver and batch size: every way to the same samples. The ratio of each is to the loop around PyTorch."""

    solver: str
    steps: int
    batch: int
    ways: list[Timing] = field(default_factory=list)

    def ratio(self, timing: Timing) -> float:
        """How many times faster than the loop around PyTorch; NaN where one of them did not run."""
        loop = next(way for way in self.ways if way.name == TORCH)
        return loop.median / timing.median


@dataclass(frozen=True)
class TrajectoryBench:
    """data [N, *shape] as stored; tols: our ways are timed at each of them."""

    data: Tensor
    rounds: int = 3
    seed: int = 0
    tols: Sequence[float] = (1e-5,)

    def run(self, solver: str, steps: int, batch: int) -> Walks:
        """Times every way from the same noise; a way of ours that breaks contract 1 loses its times."""
        sigmas = karras(steps)
        generator = torch.Generator().manual_seed(self.seed)
        noise = float(sigmas[0]) * torch.randn(batch, *self.data.shape[1:], generator=generator)
        found = Walks(solver, steps, batch)
        ways: list[tuple[Timing, Callable[[], tuple[Tensor, float]]]] = []

        def end(denoiser: Denoiser, keep: Literal["all", "end"]) -> Tensor:
            return sample(denoiser, noise, sigmas, solver, keep).states[-1]

        def add(name: str, call: Callable[..., Tensor], *given: object) -> None:
            found.ways.append(Timing(name))
            ways.append((found.ways[-1], partial(settled, partial(call, *given))))

        for tol, denoiser in self._ours.items():
            add(f"kept, tol {tol:g}", end, denoiser, "all")
            add(f"end, tol {tol:g}", end, denoiser, "end")
            add(f"without memory, tol {tol:g}", end, partial(_asked, denoiser), "all")
        add(TORCH, end, self._plain, "all")
        add("k-diffusion's loop", slopes, self._plain, noise, sigmas, solver)
        take_turns(ways, self.rounds, lambda _: math.nan)
        for (tol, denoiser), first in zip(self._ours.items(), range(0, 3 * len(self._ours), 3), strict=True):
            error = self._error(sample(denoiser, noise, sigmas, solver))
            for timing in found.ways[first : first + 3]:
                timing.error = error
                timing.refuse(tol)
        return found

    def _error(self, trajectory: Trajectory) -> float:
        """The largest |r - r64| / max(|r64|, 0.01 max |x_i|) of the denoised images that are compared."""
        levels = zip(trajectory.sigmas.tolist(), trajectory.states, trajectory.denoised, strict=False)
        return max(
            largest_error(r[:CHECKED], reference.denoise(x[:CHECKED].double(), self.data, sigma), self._largest_norm)
            for sigma, x, r in levels
        )

    @cached_property
    def _ours(self) -> dict[float, OptimalDenoiser]:
        return {tol: OptimalDenoiser(self.data, tol=tol).prepare() for tol in self.tols}

    @cached_property
    def _largest_norm(self) -> float:
        return largest_norm(self.data)

    @cached_property
    def _plain(self) -> Denoiser:
        softmax = made("torch-softmax", model_points(self.data))
        return lambda x, sigma: softmax(x.flatten(1), float(sigma)).reshape(x.shape)


def _asked(denoiser: OptimalDenoiser, x: Tensor, sigma: Tensor) -> Tensor:
    """r as any callable gives it: every evaluation starts from nothing."""
    return denoiser(x, sigma)


def slopes(denoise: Denoiser, x: Tensor, sigmas: Tensor, solver: str) -> Tensor:
    """The end by steps as k-diffusion's samplers are written: slopes d = (x - r) / sigma, a sigma for each sample.

    solver: euler, heun or dpmpp2m (DPM-Solver++(2M) in log sigma; Lu et al., 2211.01095)
    """
    levels = sigmas.to(x.dtype)
    before: Tensor | None = None
    for k in range(len(levels) - 1):
        sigma, following = levels[k], levels[k + 1]
        r = denoise(x, sigma)
        if solver == "dpmpp2m":
            h = (sigma / following).log() if following > 0 else None
            turned = r
            if before is not None and h is not None:
                ratio = h / (levels[k - 1] / sigma).log()
                turned = (1 + ratio / 2) * r - ratio / 2 * before
            x, before = (following / sigma) * x + (1 - following / sigma) * turned, r
            continue
        d, dt = (x - r) / sigma, following - sigma
        moved = x + d * dt
        if solver == "heun" and following > 0:
            moved = x + (d + (moved - denoise(moved, following)) / following) / 2 * dt
        x = moved
    return x
