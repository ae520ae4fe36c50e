"""That `exclude` is a data set without the point: everything that a denoiser gives, from both, to 1e-6."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import geodiff
from geodiff import paths, reference

SHAPE = (2, 3, 4)
CLASSES = 3
TOL = 1e-6
SIGMAS = (0.05, 0.4, 1.5, 6.0, 80.0)
DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class Case:
    """n points of `dtype`, drawn by `seed`, and how they are asked."""

    seed: int
    n: int
    dtype: torch.dtype
    sigma: float
    labelled: bool
    weighted: bool
    mirrored: bool

    def data(self) -> Tensor:
        pixels = torch.randint(0, 256, (self.n, *SHAPE), dtype=torch.uint8, generator=self._generator(0))
        pixels[1] = pixels[0]  # a duplicate stays
        return pixels if self.dtype == torch.uint8 else reference.model_space(pixels, torch.float32).to(self.dtype)

    def options(self, kept: Tensor) -> dict[str, Any]:
        labels, weights = torch.arange(self.n) % CLASSES, torch.randn(self.n, generator=self._generator(1))
        return {
            "labels": labels[kept] if self.labelled else None,
            "log_weights": weights[kept] if self.weighted else None,
            "augment": "hflip" if self.mirrored else None,
        }

    def queries(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """x at the points that are left out, the points, -1 and a mirror image among them, and the classes."""
        out = torch.tensor([0, self.n - 1, 5, 3])
        points = reference.model_space(self.data()[out], torch.float64)
        x = points + self.sigma * torch.randn(points.shape, generator=self._generator(2), dtype=torch.float64)
        x = x.float().double()  # so that a float32 query is the same one
        classes = out % CLASSES if self.labelled else None
        out[2] = -1
        if self.mirrored:
            out[3] += self.n
        return x, out, classes

    def _generator(self, stream: int) -> torch.Generator:
        return torch.Generator().manual_seed(7 * self.seed + stream)


def points_norm(data: Tensor) -> Tensor:
    """max_i |x_i|."""
    return reference.model_space(data, torch.float64).flatten(1).norm(dim=1).max()


def near(name: str, found: Tensor, expected: Tensor, scale: float = 1e-3) -> None:
    """|found - expected| <= 1e-6 max(|expected|, scale)."""
    off, size = float((found - expected).norm()), max(float(expected.norm()), scale)
    assert off <= TOL * size, f"{name}: off by {off / size:.3g}"


def check(case: Case, backend: str, which: Sequence[int] = range(4)) -> None:
    """Raises AssertionError where a denoiser with `exclude` and one over the other points do not agree.

    which: of the queries.
    """
    data, every = case.data(), torch.arange(case.n)
    whole = geodiff.OptimalDenoiser(data, backend=backend, tol=TOL, **case.options(every))
    x, out, classes = case.queries()
    for b in which:
        kept = every[every != out[b] % case.n] if out[b] >= 0 else every
        others = geodiff.OptimalDenoiser(data[kept], backend=backend, tol=TOL, **case.options(kept))
        wanted = () if classes is None else (classes[b : b + 1],)
        one, exclude = x[b : b + 1], out[b : b + 1]
        _check_answers(case, (whole, others), kept, (one, wanted, exclude))
        _check_velocities(whole, others, one, wanted, exclude)
        exact = others(one.requires_grad_(), case.sigma, *wanted).detach()
        plain = whole(one.detach().float(), case.sigma, *wanted, exclude=exclude).double()
        near("r of a float32 query", plain, exact, 0.01 * float(points_norm(data)))


def _check_answers(
    case: Case,
    pair: tuple[geodiff.OptimalDenoiser, geodiff.OptimalDenoiser],
    kept: Tensor,
    asked: tuple[Tensor, tuple[Tensor, ...], Tensor],
) -> None:
    """Posterior, its draws, score and gradients, of a float64 query that autograd follows: float64 throughout."""
    (whole, others), (one, wanted, exclude) = pair, asked
    sigma = torch.tensor([case.sigma], dtype=torch.float64)
    x = [one.clone().requires_grad_() for _ in range(2)]
    levels = [sigma.clone().requires_grad_() for _ in range(2)]
    found = whole.posterior(x[0], levels[0], *wanted, topk=4, exclude=exclude)
    expected = others.posterior(x[1], levels[1], *wanted, topk=4)
    for name in ("mean", "log_prob", "entropy", "ess", "trace", "weights"):
        values, exact = (getattr(answer, name) for answer in (found, expected))
        assert values is not None
        assert exact is not None
        near(name, values.detach(), exact.detach())
    names = torch.cat([kept, kept + case.n, torch.tensor([-1])])  # a copy stands N further on; -1 is none
    named = torch.where(expected.indices < 0, -1, expected.indices)
    tied = expected.weights[0].diff().abs() <= 1e-9  # of equal weight: either order
    if not bool(tied.any()):
        assert torch.equal(found.indices, names[named])
    g = torch.randn(one.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(case.seed))
    grads = [
        torch.autograd.grad((answer.mean * g).sum() + answer.log_prob.sum(), (at, level))
        for answer, at, level in zip((found, expected), x, levels, strict=True)
    ]
    for name, values, exact in zip(("gradient in x", "gradient in sigma"), *grads, strict=True):
        near(name, values, exact)
    near("covariance", found.covariance(g).detach(), expected.covariance(g).detach())
    for name in ("score", "log_prob", "divergence"):
        values = getattr(whole, name)(x[0], sigma, *wanted, exclude=exclude)
        near(name, values.detach(), getattr(others, name)(x[1], sigma, *wanted).detach())
    draws = [answer.sample(200, generator=torch.Generator().manual_seed(3)) for answer in (found, expected)]
    assert torch.equal(draws[0], names[draws[1]])


def _check_velocities(
    whole: geodiff.OptimalDenoiser,
    others: geodiff.OptimalDenoiser,
    one: Tensor,
    wanted: tuple[Tensor, ...],
    exclude: Tensor,
) -> None:
    for path, t in ((paths.Linear(), 0.02), (paths.Linear("B"), 0.3), (paths.VP(), 0.8), (paths.Linear(), 1.0)):
        x = one.clone().requires_grad_()
        found = whole.velocity(x, t, *wanted, path=path, exclude=exclude)
        near(f"velocity on {path.name} at {t}", found.detach(), others.velocity(x, t, *wanted, path=path).detach())
