"""Interpolation between two noises, and what it decodes to."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from geodiff.base.arguments import check_integer, check_reals, check_tensor
from geodiff.base.dtypes import PRECISE
from geodiff.base.per_point import per_point
from geodiff.solvers import Denoiser, Step, sample

__all__ = ["INTERPOLATIONS", "Interpolation", "decode", "linear", "rescaled", "shell_ratio", "slerp"]


def linear(z1: Tensor, z2: Tensor, weights: Tensor | Sequence[float]) -> Tensor:
    """(1 - w) z1 + w z2, [L, B, *shape]: leaves the shell of the noise, |.| = sqrt((1 - w)^2 + w^2) of it for large d.

    z1, z2 [B, *shape]; weights w [L] real (0 is z1, 1 is z2). Raises TypeError or ValueError that names the argument.
    Chen et al., 2305.19947 (section 5).
    """
    z1, z2, w = _checked(z1, z2, weights)
    return (1 - w) * z1 + w * z2


def slerp(z1: Tensor, z2: Tensor, weights: Tensor | Sequence[float]) -> Tensor:
    """sin((1 - w) psi) / sin psi z1 + sin(w psi) / sin psi z2, psi the angle between: stays on the shell.

    Arguments, shapes and errors as in `linear`; psi is one angle for each of the B pairs, and where z1 and z2 are
    parallel, where no arc is defined, this is `linear`. Shoemake 1985; for latents Song et al., 2010.02502.
    """
    z1, z2, w = _checked(z1, z2, weights)
    first, second = z1.flatten(1).double(), z2.flatten(1).double()
    cosine = (first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1))
    psi = per_point(cosine.clamp(-1, 1).acos(), z1)  # [B, 1, ...]
    w = w.double()
    arc = psi.sin() > 1e-7
    keep = torch.where(arc, ((1 - w) * psi).sin() / psi.sin(), 1 - w)
    turn = torch.where(arc, (w * psi).sin() / psi.sin(), w)
    return keep.to(z1.dtype) * z1 + turn.to(z1.dtype) * z2


def rescaled(z1: Tensor, z2: Tensor, weights: Tensor | Sequence[float]) -> Tensor:
    """[(1 - w) z1 + w z2] / sqrt((1 - w)^2 + w^2): as much noise as z1 and z2 have, in distribution.

    Arguments, shapes and errors as in `linear`. Chen et al., 2305.19947 (section 5).
    """
    z1, z2, w = _checked(z1, z2, weights)
    return ((1 - w) * z1 + w * z2) / ((1 - w).square() + w.square()).sqrt()


INTERPOLATIONS: dict[str, Callable[[Tensor, Tensor, Tensor | Sequence[float]], Tensor]] = {
    "linear": linear,
    "slerp": slerp,
    "rescaled": rescaled,
}


class Interpolation(NamedTuple):
    """latents and samples [L, B, *shape], weights [L], and ratio [L, B]: |latent| / (sigma sqrt(d)), 1 on the shell."""

    weights: Tensor
    latents: Tensor
    samples: Tensor
    ratio: Tensor


def shell_ratio(latents: Tensor, sigma: float) -> Tensor:
    """|z| / (sigma sqrt(d)), float64 [L, B], of latents [L, B, *shape] at noise level sigma: 1 +- 1 / sqrt(2 d)."""
    return latents.flatten(2).double().norm(dim=2) / (sigma * latents[0, :1].numel() ** 0.5)


@torch.no_grad()
def decode(
    denoiser: Denoiser,
    z1: Tensor,
    z2: Tensor,
    sigmas: Tensor | Sequence[float],
    *,
    how: str = "slerp",
    points: int = 11,
    solver: str | Step = "heun",
) -> Interpolation:
    """Solve the ODE from `points` latents, evenly from z1 to z2, for each of the B pairs: rows of decoded samples.

    z1, z2 [B, *shape] at sigmas[0]; how: a name in INTERPOLATIONS; points >= 2; the rest as in `geodiff.sample`, which
    gets all latents as one batch. samples[:, b] is the row of pair b. Raises as `sample` and `linear` do.
    """
    if how not in INTERPOLATIONS:
        raise ValueError(f"how: expected a known name, found {how!r}; allowed {', '.join(INTERPOLATIONS)}")
    weights = torch.linspace(0, 1, check_integer(points, "points", 2), dtype=torch.float64, device="cpu")
    latents = INTERPOLATIONS[how](z1, z2, weights)
    trajectory = sample(denoiser, latents.flatten(0, 1), sigmas, solver, keep="end")
    samples = trajectory.states[-1].reshape(latents.shape)
    return Interpolation(weights, latents, samples, shell_ratio(latents, float(trajectory.sigmas[0])))


def _checked(z1: object, z2: object, weights: Tensor | Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """z1, z2, and the weights as [L, 1, 1, ...] in their dtype."""
    z1, z2 = check_tensor(z1, "z1", PRECISE), check_tensor(z2, "z2", PRECISE)
    if z1.ndim < 2 or z1.shape != z2.shape or z1.dtype != z2.dtype:
        raise ValueError(
            f"z2: expected [B, *shape] of z1's dtype, found {list(z2.shape)} {z2.dtype} and z1 {list(z1.shape)} "
            f"{z1.dtype}; allowed two batches of one shape"
        )
    w = check_reals(weights, "weights", "[L]", at_least=1)
    return z1, z2, per_point(w, z1[None]).to(z1)
