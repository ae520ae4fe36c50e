"""Consistency distillation: the same answer at neighbours of one trajectory, along the denoising trajectory."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from geodiff.learned.consistency import ConsistencyModel
from geodiff.learned.distillation.method import Material
from geodiff.learned.network import UNetConfig
from geodiff.schedules import karras

#: Levels of the grid in the first, second and third part of a run: few at first, where errors add up fastest.
GRIDS = (8, 16, 32)


class CD:
    """min E |f_phi(x, sigma_{n+1}) - sg f_phi(x^_n, sigma_n)|_H, x = x_0 + sigma_{n+1} z.

    x^_n is where a Heun step of the teacher goes from x. |.|_H is the pseudo-Huber distance sqrt(|.|^2 + c^2) - c, c =
    0.00054 sqrt(d), weighted by 1 / (sigma_{n+1} - sigma_n), and the target is the student itself without gradient
    (Song et al., 2303.01469; Song and Dhariwal, 2310.14189). In the paper's words: the denoising trajectory is drawn
    together to its end.
    """

    def __init__(self, material: Material) -> None:
        self.material = material

    def student(self) -> nn.Module:
        """A `ConsistencyModel`."""
        settings = self.material.settings
        return ConsistencyModel(self.material.shape, UNetConfig(self.material.shape[0], settings.width, settings.patch))

    def prepare(self, progress: Callable[[int, int], object]) -> None:
        """Nothing."""

    def loss(self, student: nn.Module, frozen: nn.Module | None, step: int, generator: torch.Generator) -> Tensor:
        """The weighted distance between the answers at both ends of a step."""
        grid = karras(GRIDS[len(GRIDS) * step // self.material.settings.steps])[:-1].float()
        points = self.material.points(generator)
        # More often at levels where the data are decided, as in the second paper: a logarithmic normal.
        centres = (grid[:-1].log() + grid[1:].log()) / 2
        chances = torch.exp(-((centres + 0.5).square()) / (2 * 2.0**2))
        upper = torch.multinomial(chances, len(points), replacement=True, generator=generator)
        sigma, below = (grid[upper + ahead].reshape(-1, 1, 1, 1) for ahead in (0, 1))
        noise = torch.randn(points.shape, generator=generator)
        x = points + sigma * noise
        found = student(x, sigma.flatten())
        with torch.no_grad():
            aim = student(self.neighbour(x, points, noise, (sigma, below)), below.flatten())
        c = 0.00054 * points[0].numel() ** 0.5
        apart = ((found - aim).square().flatten(1).sum(1) + c**2).sqrt() - c
        return (apart / (sigma - below).flatten()).mean() / points[0].numel() ** 0.5

    def neighbour(self, x: Tensor, points: Tensor, noise: Tensor, levels: tuple[Tensor, Tensor]) -> Tensor:
        """x^_n: a Heun step of the teacher from x at levels[0] to levels[1]."""
        sigma, below = levels
        slope = (x - self.material.ask(x, sigma.flatten())) / sigma
        ahead = x + (below - sigma) * slope
        other = (ahead - self.material.ask(ahead, below.flatten())) / below
        return x + (below - sigma) * (slope + other) / 2
