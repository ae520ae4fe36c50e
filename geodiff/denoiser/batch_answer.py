"""A batch and the answers to it, as torch sees them: what the module shapes, and what a posterior goes back to."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from geodiff.base.arguments import check_device, check_query_shape
from geodiff.base.dtypes import FLOATING
from geodiff.denoiser import derivatives
from geodiff.denoiser.conditioning import Batch
from geodiff.denoiser.operators import Question
from geodiff.denoiser.point_set import FIELDS, PointSet


@dataclass(frozen=True, eq=False)
class BatchAnswer:
    """answer: the fields of `geodiff::posterior` by name, flat and float64."""

    points: PointSet
    batch: Batch
    answer: dict[str, Tensor]

    @classmethod
    def to(
        cls,
        batch: Batch,
        points: PointSet,
        topk: int = 0,
        *,
        with_trace: bool = False,
        finer: Tensor | None = None,
    ) -> Self:
        """Asks the operator, which autograd and its kin can follow; finer: see `Question`."""
        found = derivatives.posterior(points, *Question.of(batch, points, finer), topk, with_trace)
        return cls(points, batch, dict(zip(FIELDS, found, strict=True)))

    def shaped(self, name: str) -> Tensor:
        """A flat answer in the shape of the points."""
        return self.points.stored.unflatten(self.answer[name])

    def covariance(self, v: Tensor) -> Tensor:
        """Cov_w v, [B, *shape]: see `Posterior.covariance`."""
        x, sigma = self.batch.x, self.batch.sigma
        v = check_query_shape(v, self.points.stored.shape, dtypes=FLOATING, name="v")
        check_device(v, "v", x.device)
        if v.shape[0] != x.shape[0]:
            raise ValueError(f"v: expected one direction for each of B = {len(x)} queries, found {len(v)}")
        mean, trace = self.answer["mean"].detach(), self.answer["trace"]
        flat = self.points.stored.flatten(v.double())
        rows, _ = derivatives.vjp(self.points, *Question.of(self.batch, self.points), mean, trace, flat, None)
        return self.points.stored.unflatten(rows * sigma[:, None].square()).to(v.dtype)

    def draw(self, uniform: Tensor) -> Tensor:
        """Data indices [B, n]: see `Posterior.sample`."""
        x, sigma = self.batch.x.detach(), self.batch.sigma.detach()
        return self.points.draw(self.batch.at(x, sigma), uniform)
