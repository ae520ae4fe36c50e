"""Knowledge distillation: one step from noise to the end of the teacher's trajectory, over stored pairs."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from geodiff.learned.denoiser import LearnedDenoiser
from geodiff.learned.distillation.method import Material
from geodiff.learned.distillation.pair_store import PairStore
from geodiff.learned.network import UNetConfig


class KD:
    """min_phi E |r_phi(x_T; sigma_T) - x_0|^2 over pairs (x_T, x_0) of the teacher's ODE (Luhman, 2101.02388).

    In the paper's words: fits the map from the start of a sampling trajectory to its end, and nothing between.
    """

    def __init__(self, material: Material) -> None:
        self.material = material
        assert material.teacher is not None
        settings = material.settings
        self.store = PairStore(
            material.folder / "pairs", material.teacher, material.shape, origin=material.origin, seed=settings.seed
        )

    def student(self) -> nn.Module:
        """A denoiser, which is asked at sigma = 80 alone."""
        settings = self.material.settings
        return LearnedDenoiser(self.material.shape, UNetConfig(self.material.shape[0], settings.width, settings.patch))

    def prepare(self, progress: Callable[[int, int], object]) -> None:
        """The pairs."""
        count = self.material.settings.pairs
        self.store.collect(count, lambda done: progress(min(done, count), count))
        self.noise, self.states = self.store.read(count)

    def loss(self, student: nn.Module, frozen: nn.Module | None, step: int, generator: torch.Generator) -> Tensor:
        """The mean squared error of x_0, per pixel."""
        chosen = torch.randint(len(self.noise), (self.material.settings.batch,), generator=generator)
        return (student(self.noise[chosen], 80.0) - self.states[-1, chosen].float()).square().mean()
