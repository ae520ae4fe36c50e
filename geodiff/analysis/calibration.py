"""Which windows a network seems to look through: the k(sigma) whose local denoiser points where the network does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geodiff.base.arguments import check_integer
from geodiff.base.denoiser_type import Denoiser
from geodiff.local.module import LocalDenoiser
from geodiff.local.schedules import PatchSchedule, chosen
from geodiff.solvers import sample

__all__ = ["PATCHES", "Calibration", "calibrate"]

#: What networks were compared with in the published tables.
PATCHES = (3, 5, 7, 9, 11, 13, 15, 17)


@dataclass(frozen=True, eq=False)
class Calibration:
    """schedule: k at each level. patches [K]; cosines [S, K, B] between the scores of network and local denoiser."""

    schedule: PatchSchedule
    patches: tuple[int, ...]
    cosines: Tensor

    @property
    def best(self) -> Tensor:
        """[S, B]: the k of the largest cosine, for each level and sample."""
        return torch.tensor(self.patches, device="cpu")[self.cosines.argmax(1)]


@torch.no_grad()
def calibrate(
    network: Denoiser,
    local: Callable[[int], LocalDenoiser],
    noise: Tensor,
    sigmas: Tensor | Sequence[float],
    patches: Sequence[int] = PATCHES,
    progress: Callable[[], object] = lambda: None,
) -> Calibration:
    """k(sigma) = median over samples of argmax_k cos(r_theta(x) - x, r_k(x) - x), along the network's own trajectory.

    network  r_theta(x, sigma)
    local    k -> the local denoiser to compare with, such as `lambda k: LocalDenoiser(data, patch=k)`
    noise    [B, *shape] at sigmas[0], as `geodiff.sample` takes them; Euler steps in sigma, which are DDIM's
    patches  the k that are tried; of equal cosines the smaller one counts, and of two medians
    progress called after each level of each k
    As the published tables of LS and ELS were made (Kamb and Ganguli, 2412.20292).
    """
    patches = tuple(sorted({check_integer(k, "patches", 1) for k in patches}))
    if not patches or not len(noise):
        raise ValueError(f"patches, noise: expected one or more of each, found {len(patches)} and {len(noise)}")
    walked = sample(network, noise, sigmas, "euler")
    assert walked.denoised is not None, "all states are kept"
    levels = walked.sigmas[:-1].tolist()
    cosines = torch.empty(len(levels), len(patches), len(noise), dtype=torch.float64, device="cpu")
    for place, k in enumerate(patches):
        denoiser = local(k)
        for step, sigma in enumerate(levels):
            x = walked.states[step].double()
            towards, found = walked.denoised[step].double() - x, denoiser(walked.states[step], sigma).double() - x
            cosines[step, place] = torch.cosine_similarity(towards.flatten(1), found.flatten(1))
            progress()
    best = torch.tensor(patches, device="cpu")[cosines.argmax(1)]  # [S, B]
    made = chosen(levels, best.median(1).values.tolist(), f"calibrated on {len(noise)} samples of a network")
    return Calibration(made, patches, cosines)
