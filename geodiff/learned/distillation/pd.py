"""Progressive distillation: a step of the student for two of the teacher, along the sampling trajectory, and again."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from geodiff.learned import noise_levels
from geodiff.learned.denoiser import LearnedDenoiser
from geodiff.learned.distillation.method import Material
from geodiff.learned.network import UNetConfig
from geodiff.schedules import karras


def target(x: Tensor, end: Tensor, sigma: Tensor, final: Tensor) -> Tensor:
    """r = (sigma x'' - sigma'' x) / (sigma - sigma''): with this answer, one Euler step goes from x to x''.

    x, x'' [B, *shape] at sigma, sigma'' [B, 1, ...] (Salimans and Ho, 2202.00512, appendix G, in these coordinates).
    """
    return (sigma * end - final * x) / (sigma - final)


class PD:
    """min E w(sigma) |r_phi(x; sigma) - target|^2, x = x_0 + sigma z, sigma on the student's grid, in halving stages.

    In the paper's words: the sampling trajectory of the teacher, in half as many steps. The grid is Karras's with
    `start` levels above 0; the student of stage s takes every 2^(s+1)-th of them.
    """

    def __init__(self, material: Material) -> None:
        self.material = material
        self.grid = karras(material.settings.start)

    def student(self) -> nn.Module:
        """A denoiser."""
        settings = self.material.settings
        return LearnedDenoiser(self.material.shape, UNetConfig(self.material.shape[0], settings.width, settings.patch))

    def prepare(self, progress: Callable[[int, int], object]) -> None:
        """Nothing."""

    def loss(self, student: nn.Module, frozen: nn.Module | None, step: int, generator: torch.Generator) -> Tensor:
        """The weighted error against two steps of the teacher, or of the frozen student of the stage before."""
        stride = 2 ** min(step * self.material.settings.stages // self.material.settings.steps, 30)
        nodes = self.grid[::stride]  # the teacher's
        points = self.material.points(generator)
        chosen = 2 * torch.randint((len(nodes) - 1) // 2, (len(points),), generator=generator)
        sigma, middle, final = (nodes[chosen + ahead].float().reshape(-1, 1, 1, 1) for ahead in range(3))
        x = points + sigma * torch.randn(points.shape, generator=generator)

        def ask(x: Tensor, sigma: Tensor) -> Tensor:
            if frozen is None:
                return self.material.ask(x, sigma.flatten())
            with torch.no_grad():
                return frozen(x, sigma.flatten())

        halfway = x + (middle - sigma) * (x - ask(x, sigma)) / sigma
        end = halfway + (final - middle) * (halfway - ask(halfway, middle)) / middle
        error = (student(x, sigma.flatten()) - target(x, end, sigma, final)).square().mean((1, 2, 3))
        return (noise_levels.weight(sigma.flatten().clamp_min(0.05)) * error).mean()
