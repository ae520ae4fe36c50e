"""Consistency training: consistency distillation whose teacher is the data point itself."""

from torch import Tensor

from geodiff.learned.distillation.cd import CD


class CT(CD):
    """As `CD`, with x^_n = x_0 + sigma_n z: the step towards the point that x was made from (Song et al., 2303.01469).

    In expectation over x_0 that is the step of the optimal denoiser: what CT distils is the optimal teacher.
    """

    def neighbour(self, x: Tensor, points: Tensor, noise: Tensor, levels: tuple[Tensor, Tensor]) -> Tensor:
        """x^_n = x_0 + sigma_n z."""
        return points + levels[1] * noise
