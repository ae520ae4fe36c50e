"""Local denoisers beside a network and the optimal one: on the same noisy points, and image by image."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geodiff.base.answers import check_answer
from geodiff.base.denoiser_type import Denoiser
from geodiff.local.module import LocalDenoiser
from geodiff.reference.formula import model_space

__all__ = ["Agreement", "Denoiser", "Mosaic", "agreement", "correlation", "mosaic"]


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """<a - mean a, b - mean b> / |a - mean a| |b - mean b| of each image, [B] float64, for a, b [B, *shape].

    The mean is over all numbers of an image. What evaluations of local denoisers call r^2, and do not square.
    Raises ValueError for shapes that differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"b: expected the shape of a, {list(a.shape)}, found {list(b.shape)}; allowed that one")
    a, b = (values.double().flatten(1) for values in (a, b))
    return torch.cosine_similarity(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True), eps=1e-300)


@dataclass(frozen=True, eq=False)
class Agreement:
    """Denoisers against one of them, on the same points.

    sigmas       [S]
    correlations name -> [S, B]: of its answer with the one that all are compared with
    distances    name -> [S, B]: |r - r_0| / |r_0|
    answers      name -> [S, B, *shape]
    """

    sigmas: Tensor
    correlations: dict[str, Tensor]
    distances: dict[str, Tensor]
    answers: dict[str, Tensor]


@torch.no_grad()
def agreement(
    denoisers: Mapping[str, Denoiser],
    noisy: Tensor,
    sigmas: Tensor | Sequence[float],
    progress: Callable[[], object] = lambda: None,
) -> Agreement:
    """Answers of all denoisers to the same x, compared with the first of them: the network, as a rule.

    denoisers  name -> r(x, sigma), two or more; sigma is a number
    noisy      x [S, B, *shape], at sigmas [S]: such as the states of a network's own trajectories
    progress   is called after each answer
    """
    levels = sigmas.double() if isinstance(sigmas, Tensor) else torch.tensor(sigmas, dtype=torch.float64, device="cpu")
    if len(denoisers) < 2 or len(noisy) != len(levels):
        raise ValueError(
            f"denoisers, noisy: expected two denoisers or more and points for each of {len(levels)} levels, found "
            f"{len(denoisers)} and {list(noisy.shape)}; allowed [S, B, *shape]"
        )
    answers = {}
    for name, denoiser in denoisers.items():
        found = []
        for x, sigma in zip(noisy, levels.tolist(), strict=True):
            found.append(check_answer(denoiser(x, sigma), x, name, f"sigma = {sigma:g}"))
            progress()
        answers[name] = torch.stack(found)
    first, *others = answers
    correlations = {
        name: torch.stack([correlation(*pair) for pair in zip(answers[name], answers[first], strict=True)])
        for name in others
    }
    norm = answers[first].double().flatten(2).norm(dim=2)
    distances = {
        name: (answers[name].double() - answers[first].double()).flatten(2).norm(dim=2) / norm for name in others
    }
    return Agreement(levels, correlations, distances, answers)


@dataclass(frozen=True, eq=False)
class Mosaic:
    """Which image each pixel comes from.

    nearest [B, H, W] the image of the largest weight, N + i for a mirror image
    images  [B, C, H, W] float32: every pixel of that image, the mosaic itself
    ess     [B, H, W] N_eff = 1 / sum_i w_i(p)^2: how many images share a pixel
    """

    nearest: Tensor
    images: Tensor
    ess: Tensor

    @property
    def pieces(self) -> Tensor:
        """How many different images each mosaic is made of, [B] int64."""
        return torch.tensor([len(one.unique()) for one in self.nearest], device="cpu")


def mosaic(denoiser: LocalDenoiser, x: Tensor, sigma: float, **conditions: Tensor) -> Mosaic:
    """argmax_i w_i(p) at every pixel p of x [B, C, H, W]: of LS, which takes pixels from their own place.

    Raises ValueError for kinds whose posteriors are not one a pixel, or take pixels from elsewhere.
    """
    if denoiser.kind not in ("ls", "ls_circular"):
        raise ValueError(f"denoiser: expected kind 'ls' or 'ls_circular', found {denoiser.kind!r}; allowed those two")
    found = denoiser.posteriors(x, sigma, **conditions)
    assert found.nearest is not None, "posteriors of a denoiser have all"
    assert found.ess is not None, "posteriors of a denoiser have all"
    n = len(denoiser.data)
    rows = denoiser.places(found.nearest % n)
    height, width = torch.meshgrid(*(torch.arange(size, device=x.device) for size in x.shape[-2:]), indexing="ij")
    across = torch.where(found.nearest >= n, x.shape[-1] - 1 - width, width)
    picked = denoiser.data[rows, :, height, across]  # [B, H, W, C]
    return Mosaic(found.nearest, model_space(picked, torch.float32).movedim(-1, 1), found.ess)
