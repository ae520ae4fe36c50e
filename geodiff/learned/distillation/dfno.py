"""Diffusion Fourier neural operator: the whole trajectory at once, over stored trajectories."""

import torch
from torch import Tensor, nn

from geodiff.learned.distillation.kd import KD
from geodiff.learned.network import UNetConfig
from geodiff.learned.trajectory_operator import LEVELS, TrajectoryOperator


class DFNO(KD):
    """min E sum_m w_m |G(x_T)(sigma_m) - x_{sigma_m}|^2 / sum_m w_m, w = clamp(1 / sigma, 1, 10).

    Zheng et al., 2211.13449. 1 / sigma is the square root of the signal-to-noise ratio, which they cut off at 1e4; here
    the last level is 0, and would be all of the loss. Their error is |.|_1, whose minimum is the median of each pixel:
    of digits that is black nearly everywhere (FD 122 after 1,200 steps, where the mean of the data has 171). In the
    paper's words: fits the sampling trajectory itself.
    """

    def student(self) -> nn.Module:
        """A `TrajectoryOperator`."""
        settings = self.material.settings
        return TrajectoryOperator(
            self.material.shape, UNetConfig(self.material.shape[0], settings.width, settings.patch)
        )

    def loss(self, student: nn.Module, frozen: nn.Module | None, step: int, generator: torch.Generator) -> Tensor:
        """The weighted error of all states, per pixel."""
        # A trajectory is as many pictures as it has points; twice as many of them as fit, for ends differ the most.
        count = max(1, 2 * self.material.settings.batch // len(LEVELS))
        chosen = torch.randint(len(self.noise), (count,), generator=generator)
        errors = (student(self.noise[chosen]) - self.states[:, chosen].float()).square().flatten(1).mean(1)  # [M]
        weights = torch.tensor(LEVELS).clamp_min(1e-4).reciprocal().clamp(1.0, 10.0)
        return (weights * errors).sum() / weights.sum()
