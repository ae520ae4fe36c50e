"""A consistency function: from any point of a trajectory to its end, in one evaluation."""

import torch
from torch import Tensor

from geodiff.learned.denoiser import SIGMA_DATA, LearnedDenoiser, coefficients

SIGMA_MIN = 0.002


class ConsistencyModel(LearnedDenoiser):
    """f(x, sigma) = c_skip x + c_out F(c_in x; c_noise), f(x, sigma_min) = x, sigma_min = 0.002.

    c_skip = sigma_d^2 / ((sigma - sigma_min)^2 + sigma_d^2), c_out = (sigma - sigma_min) sigma_d / sqrt(sigma^2 +
    sigma_d^2), Song et al., 2303.01469, appendix C, sigma_d = 0.5; the rest, arguments and errors as of
    `LearnedDenoiser`. As a denoiser it answers the end of the trajectory through x, not the mean of what x may be.
    """

    def forward(self, x: Tensor, sigma: float | Tensor, class_labels: Tensor | None = None) -> Tensor:
        """f(x, sigma), [B, C, H, W] in the dtype of x; sigma a number, 0-d, [B] or [B, 1, ...], >= sigma_min."""
        r = super().forward(x, sigma, class_labels)  # checks them
        if len(x) == 0:
            return r
        levels = self._inputs(x, sigma)[1]
        skip = coefficients(levels)[0]
        gone = levels - SIGMA_MIN
        kept = SIGMA_DATA**2 / (gone.square() + SIGMA_DATA**2)
        # F is (r - skip x) / out, and c_out of both differ by this factor.
        ratio = gone / levels
        return (kept * x + ratio * (r - skip * x)).to(x.dtype)


def multistep(model: ConsistencyModel, noise: Tensor, sigmas: list[float], generator: torch.Generator) -> Tensor:
    """x <- f(x, tau) + sqrt(tau'^2 - sigma_min^2) z down the levels, [B, *shape]: a noise [B, *shape] at sigmas[0].

    Song et al., 2303.01469, algorithm 1; one level is one evaluation.
    """
    x = model(noise, sigmas[0])
    for tau in sigmas[1:]:
        z = torch.randn(x.shape, generator=generator, device="cpu").to(x)
        x = model(x + max(tau**2 - SIGMA_MIN**2, 0.0) ** 0.5 * z, tau)
    return x
