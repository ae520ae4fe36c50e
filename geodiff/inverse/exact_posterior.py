"""What only a data set gives: the posterior p(x_0 | y) itself, and the denoiser that leads to it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from geodiff.base.arguments import check_data, check_integer, check_query, check_sigma
from geodiff.inverse.problem import Problem
from geodiff.reference.formula import model_space

# The most numbers of the data that are held in float64 at a time.
_TILE = 2**22
_DIFFERENCES = "donot_use_mm_for_euclid_dist"  # cdist takes differences before it squares, so nothing cancels


@dataclass(frozen=True, eq=False)
class ExactPosterior:
    """p(x_0 | y) = sum_i w_i delta(x_0 - x_i), w = softmax_i(-|y - A x_i|^2 / 2 sigma_n^2), over the data as prior.

    data     [N, *shape] as a denoiser takes it: uint8 u means u/127.5 - 1; on the device of the measurements
    problem  B measurements

    Everything is worked out in float64 from differences. Memory: B N numbers for the weights, and a tile of data.
    No method can do better in the mean than `mean` if x_0 is one of the data; for other images it is one more prior.
    Raises TypeError or ValueError that names the argument.
    """

    data: Tensor
    problem: Problem

    def __post_init__(self) -> None:
        shape = tuple(check_data(self.data).shape[1:])
        if shape != self.problem.operator.shape:
            raise ValueError(f"data: expected points of {self.problem.operator.shape}, found {shape}")

    @cached_property
    def log_weights(self) -> Tensor:
        """log w, float64 [B, N]."""
        y = self.problem.y.double().flatten(1)
        seen = [self.problem.operator.observed(self.problem.operator(points)) for points in self._tiles()]
        distances = torch.cat([torch.cdist(y, part.flatten(1), compute_mode=_DIFFERENCES) for part in seen], 1)
        return (-distances.square() / (2 * self.problem.sigma**2)).log_softmax(1)

    @property
    def weights(self) -> Tensor:
        """w, float64 [B, N]."""
        return self.log_weights.exp()

    @cached_property
    def mean(self) -> Tensor:
        """E[x_0 | y] = sum_i w_i x_i, [B, *shape] in the dtype of y: the answer of least expected squared error."""
        return self._mean(self.weights).to(self.problem.y.dtype)

    @property
    def ess(self) -> Tensor:
        """1 / sum_i w_i^2, [B]: how many data points the measurement leaves."""
        return 1 / self.weights.square().sum(1)

    @property
    def nearest(self) -> Tensor:
        """argmin_i |y - A x_i|, int64 [B]."""
        return self.log_weights.argmax(1)

    def sample(self, count: int = 1, *, generator: torch.Generator | None = None) -> Tensor:
        """count independent draws of x_0 for each measurement, [count, B, *shape] in the dtype of y."""
        count = check_integer(count, "count", 1)
        drawn = torch.multinomial(self.weights.cpu(), count, replacement=True, generator=generator).T  # [count, B]
        return model_space(self.data[drawn.to(self.data.device)], self.problem.y.dtype)

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """E[x_0 | x, y] = sum_i v_i x_i, v = softmax_i(log w_i - |x - x_i|^2 / 2 sigma^2), [B, *shape] in x's dtype.

        x [B, *shape]: x_b is of measurement b, or all are of the only one. A denoiser for `geodiff.sample`, whose
        trajectories from noise end in draws from p(x_0 | y): what guidance approximates, without its approximation.
        """
        x = check_query(x, self.problem.operator.shape)
        if len(self.problem) not in (1, len(x)):
            raise ValueError(
                f"x: expected a point for each measurement, B = {len(self.problem)}, found {len(x)}; "
                f"allowed as many as measurements, or any number where there is one"
            )
        levels = check_sigma(sigma, len(x), device=x.device)[:, None]
        flat = x.double().flatten(1)
        apart = [torch.cdist(flat, points.flatten(1), compute_mode=_DIFFERENCES) for points in self._tiles()]
        logits = self.log_weights - torch.cat(apart, 1).square() / (2 * levels.square())
        return self._mean(logits.softmax(1)).to(x.dtype)

    def _mean(self, weights: Tensor) -> Tensor:
        """sum_i weights_i x_i, float64 [B, *shape]."""
        total = torch.zeros(len(weights), self.data[0].numel(), dtype=torch.float64, device=weights.device)
        start = 0
        for points in self._tiles():
            total += weights[:, start : start + len(points)] @ points.flatten(1)
            start += len(points)
        return total.reshape(-1, *self.problem.operator.shape)

    def _tiles(self) -> Iterator[Tensor]:
        """The data, float64 [n, *shape] in model space, part by part."""
        for part in self.data.split(max(1, _TILE // self.data[0].numel())):
            yield model_space(part, torch.float64)
