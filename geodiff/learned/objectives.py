"""What a network is asked while it learns, and what it should have answered."""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from geodiff.denoiser.module import OptimalDenoiser
from geodiff.learned import noise_levels
from geodiff.learned.denoiser import LearnedDenoiser
from geodiff.learned.flow import LearnedFlow
from geodiff.paths import LINEAR
from geodiff.reference.formula import model_space

TARGETS = ("data", "expected", "optimal")
#: Below this level the point is the others' no more: r* without it is far off, and its errors count no more than here.
_LEAST_ALONE = 0.5


class Lesson(NamedTuple):
    """A batch: x [B, *shape] at sigma [B], or at the time t [B] of the path; the target [B, *shape]; the weight [B]."""

    x: Tensor
    sigma: Tensor
    t: Tensor | None
    target: Tensor
    weight: Tensor

    def answer(self, network: LearnedDenoiser | LearnedFlow) -> Tensor:
        """What the network says: r(x; sigma), or v(x, t)."""
        if self.t is None:
            return network(self.x, self.sigma)
        assert isinstance(network, LearnedFlow), "times are asked of a flow"
        return network.velocity(self.x, self.t)


class Objective:
    """Draws lessons. target: see `Training`; "expected" and "optimal" ask the optimal denoiser, over all the data."""

    def __init__(self, data: Tensor, flow: bool, target: str, wide: float) -> None:
        self._data, self._flow, self._target, self._wide = data, flow, target, wide
        self._optimal = None if target == "data" else OptimalDenoiser(data, tol=1e-4)

    def draw(self, count: int, generator: Generator) -> Lesson:
        """`count` points, noises and levels, all from the generator."""
        chosen = torch.randint(len(self._data), (count,), generator=generator)
        points = model_space(self._data[chosen], torch.float32)
        return (self._on_the_path if self._flow else self._noisy)(points, chosen, generator)

    def _noisy(self, points: Tensor, chosen: Tensor, generator: Generator) -> Lesson:
        sigma = noise_levels.draw(len(points), self._wide, generator)
        x = points + sigma.reshape(-1, 1, 1, 1) * torch.randn(points.shape, generator=generator)
        counted = sigma.clamp(min=_LEAST_ALONE) if self._target == "optimal" else sigma
        target = points if self._optimal is None else self._optimal(x, sigma, exclude=self._left_out(chosen))
        return Lesson(x, sigma, None, target, noise_levels.weight(counted))

    def _on_the_path(self, points: Tensor, chosen: Tensor, generator: Generator) -> Lesson:
        t = noise_levels.draw_times(len(points), self._wide, generator)
        noise = torch.randn(points.shape, generator=generator)
        x = LINEAR.mix(points, noise, t)
        weight = torch.ones_like(t)
        if self._optimal is None:
            target = noise - points
        else:
            target = self._optimal.velocity(x, t, exclude=self._left_out(chosen))
            if self._target == "optimal":  # v = (x - r) / t: as the error of a denoiser there
                weight = (t / (1 - t)).clamp(max=_LEAST_ALONE).square() / _LEAST_ALONE**2
        return Lesson(x, t / (1 - t), t, target, weight)

    def _left_out(self, chosen: Tensor) -> Tensor | None:
        return chosen if self._target == "optimal" else None
