"""What published code computes in the place of the optimal denoiser, against float64: shortcuts, each in a few lines.

Short re-implementations of the ideas, not of the code: which part of the data is looked at, and in what arithmetic. The
error is that of contract 1, |r - r64| / max(|r64|, 0.01 max_i |x_i|), over queries x = x_i + sigma n.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geodiff import reference
from geodiff.data import Dataset
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.reference.contract import errors, largest_norm

SIGMAS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0)
QUERIES = 16
_BATCH = 512  # of data points, in what takes the softmax batch by batch
_NEAREST = 200
_TENTH = 10


@dataclass(frozen=True)
class PublishedRow:
    """One shortcut at one level.

    way      its name; see WAYS
    error    the largest over queries; infinite where it is not finite
    typical  the median over queries
    """

    way: str
    sigma: float
    error: float
    typical: float


@dataclass(frozen=True, eq=False)
class Setting:
    """x [B, d] float32 at sigma, points [N, d] float32 in model space, and a generator for what is drawn."""

    x: Tensor
    points: Tensor
    sigma: float
    generator: torch.Generator

    def distances(self, points: Tensor) -> Tensor:
        """|x - x_i|^2 [B, n] as the two-product form has them."""
        return self.x.square().sum(1, keepdim=True) - 2 * self.x @ points.T + points.square().sum(1)

    def mean(self, points: Tensor) -> Tensor:
        """softmax(-|x - x_i|^2 / 2 sigma^2) X over these points only, in float32."""
        return (-self.distances(points) / (2 * self.sigma**2)).softmax(1) @ points


def nearest(at: Setting) -> Tensor:
    """The softmax over the 200 nearest points alone."""
    distances = at.distances(at.points)
    found = distances.topk(min(_NEAREST, len(at.points)), largest=False)
    weights = (-found.values / (2 * at.sigma**2)).softmax(1)
    return (weights[..., None] * at.points[found.indices]).sum(1)


def batch_softmax(at: Setting) -> Tensor:
    """A softmax within each batch of 512 points, and the mean of the batches' answers."""
    return torch.stack([at.mean(part) for part in at.points.split(_BATCH)]).mean(0)


def random_tenth(at: Setting) -> Tensor:
    """The softmax over a random tenth of the data."""
    chosen = torch.randperm(len(at.points), generator=at.generator)[: max(1, len(at.points) // _TENTH)]
    return at.mean(at.points[chosen])


def one_batch(at: Setting) -> Tensor:
    """The softmax over one random batch of 512 points, as a Monte Carlo estimate."""
    return at.mean(at.points[torch.randperm(len(at.points), generator=at.generator)[:_BATCH]])


def bfloat16(at: Setting) -> Tensor:
    """The two-product form in bfloat16."""
    x, points = at.x.bfloat16(), at.points.bfloat16()
    logits = (_product(x, points.T) - points.square().sum(1) / 2) / at.sigma**2
    return _product(logits.softmax(1), points).float()


def bfloat16_products(at: Setting) -> Tensor:
    """The same with its products alone in bfloat16, as under autocast; the softmax in float32."""
    points = at.points.bfloat16()
    logits = (_product(at.x.bfloat16(), points.T).float() - at.points.square().sum(1) / 2) / at.sigma**2
    return _product(logits.softmax(1).bfloat16(), points).float()


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a b of bfloat16 numbers, summed in float32 and rounded once, as GPUs do: fast where bfloat16 is not."""
    return (a.float() @ b.float()).bfloat16()


def float32(at: Setting) -> Tensor:
    """The two-product form in float32, over all data."""
    return reference.two_product(at.x, at.points, at.sigma)


#: name -> what it computes; docs/what-published-code-computes.md says where each is met
WAYS: dict[str, Callable[[Setting], Tensor]] = {
    "top-200": nearest,
    "softmax per batch": batch_softmax,
    "random tenth": random_tenth,
    "one batch": one_batch,
    "bfloat16": bfloat16,
    "bfloat16 products": bfloat16_products,
    "float32": float32,
}


def run(
    data: Dataset,
    *,
    sigmas: Sequence[float] = SIGMAS,
    queries: int = QUERIES,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[PublishedRow]:
    """Every way at every level, and this package as the last of them.

    progress: called as progress(levels done, levels in all). Memory: the data in float32, and N numbers for each query.
    """
    stored = data.data.flatten(1)
    points = reference.model_space(stored, torch.float32)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(points), (queries,), generator=generator)
    noise = torch.randn(queries, points.shape[1], generator=generator)
    denoiser = OptimalDenoiser(stored)
    largest = largest_norm(stored)
    rows = []
    for done, sigma in enumerate(sigmas):
        x = points[chosen] + sigma * noise
        exact = reference.posterior(x.double(), stored, sigma).mean
        ways: dict[str, Callable[[Setting], Tensor]] = {**WAYS, "geodiff": lambda at: denoiser(at.x, at.sigma)}
        for name, way in ways.items():
            error = errors(way(Setting(x, points, sigma, generator)), exact, largest)
            rows.append(PublishedRow(name, sigma, float(error.max()), float(error.median())))
        if progress is not None:
            progress(done + 1, len(sigmas))
    return rows
