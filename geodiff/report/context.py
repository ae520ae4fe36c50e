"""What every part of a report works with: the data, the two denoisers, and trajectories that several parts share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from geodiff.analysis.quality import PrincipalComponents
from geodiff.analysis.score_deviation import ScoreDeviation, score_deviation
from geodiff.data import Dataset
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.learned import LearnedDenoiser, LearnedFlow
from geodiff.learned.weights_file import Network
from geodiff.reference.formula import model_space
from geodiff.schedules import karras
from geodiff.solvers import sample
from geodiff.solvers.trajectory import Trajectory

#: The paper's grid: 20 Euler steps from 80 to 0.002, without the step to 0.
LEVELS = 21
_QUERIES = 64  # for a network at once: larger batches fall out of cache


@dataclass
class Context:
    """Inputs of a report. `num` noises are drawn from `seed`; `tick` is called after every evaluation of a denoiser."""

    dataset: Dataset
    optimal: OptimalDenoiser
    network: Network | None
    num: int = 256
    seed: int = 0
    tick: Callable[[], object] = field(default=lambda: None)

    @property
    def learned(self) -> LearnedDenoiser | LearnedFlow | None:
        """The network, if it can be asked at any point and level, as all parts but that on students do."""
        return self.network if isinstance(self.network, LearnedDenoiser | LearnedFlow) else None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one data point."""
        return self.optimal.shape

    @property
    def dimension(self) -> int:
        """d."""
        return self.dataset.data[0].numel()

    @cached_property
    def sigmas(self) -> Tensor:
        """The paper's 21 levels."""
        return karras(LEVELS)[:-1]

    def normal(self, count: int, stream: int = 0) -> Tensor:
        """z ~ N(0, I), [count, *shape] float32; another `stream` draws other numbers."""
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + stream)
        return torch.randn(count, *self.shape, generator=generator)

    @cached_property
    def noise(self) -> Tensor:
        """x_T = 80 z, [num, *shape]: what all shared trajectories start from."""
        return self.sigmas[0].item() * self.normal(self.num)

    def points(self, count: int, stream: int = 1) -> Tensor:
        """`count` data points drawn with replacement, [count, *shape] float32, model space."""
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + stream)
        chosen = torch.randint(len(self.dataset), (count,), generator=generator)
        return model_space(self.dataset.data[chosen], torch.float32)

    def spread(self, limit: int) -> Tensor:
        """All data as stored, or `limit` points evenly spread over them: files are often sorted by class."""
        data = self.dataset.data
        return data[torch.linspace(0, len(data) - 1, min(len(data), limit)).round().long()]

    def ask_optimal(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """r*(x; sigma), with a tick."""
        answer = self.optimal(x, sigma)
        self.tick()
        return answer

    def ask_learned(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """r_theta(x; sigma), in small batches, with a tick. Only where there is a network; sigma one level for all."""
        assert self.learned is not None
        with torch.no_grad():
            answer = torch.cat([self.learned(part, sigma) for part in x.split(_QUERIES)])
        self.tick()
        return answer

    @cached_property
    def optimal_trajectory(self) -> Trajectory:
        """Of the optimal denoiser, by Heun's method, from `noise` down the paper's levels: near the ODE's solution.

        Twenty Euler steps, as the paper takes, lag behind so far at the last levels that monotone quantities turn.
        """
        return sample(self.ask_optimal, self.noise, self.sigmas, "heun")

    @cached_property
    def euler_trajectory(self) -> Trajectory:
        """Of the optimal denoiser, by Euler's method, as the paper solves it, from the same noise."""
        return sample(self.ask_optimal, self.noise, self.sigmas, "euler")

    @cached_property
    def deviation(self) -> ScoreDeviation:
        """Of the network from the optimal denoiser, by Euler, from the same noise. Only where there is a network."""
        return score_deviation(self.ask_learned, self.ask_optimal, self.noise, self.sigmas)

    @cached_property
    def features(self) -> PrincipalComponents:
        """The features that distances between sets of pictures are over."""
        return PrincipalComponents(self.dataset.data)

    @cached_property
    def data_norm(self) -> float:
        """sqrt(mean_i |x_i - mean|^2): how far data points are from their mean, the scale for distances."""
        points = self.points(min(len(self.dataset), 2000))
        return float((points - self.optimal.mean).flatten(1).square().sum(1).mean().sqrt())
