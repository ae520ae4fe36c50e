"""A learned denoiser: a network behind EDM's preconditioning, called as the optimal one is."""

import torch
from torch import Tensor

from geodiff.base.arguments import check_query, check_sigma
from geodiff.base.dtypes import FLOATING
from geodiff.learned.image_model import ImageModel, check_no_labels

SIGMA_DATA = 0.5


class LearnedDenoiser(ImageModel):
    """r(x; sigma) = c_skip x + c_out F(c_in x; c_noise), Karras et al., 2206.00364, table 1, sigma_d = 0.5.

    c_skip = sigma_d^2 / (sigma^2 + sigma_d^2), c_out = sigma sigma_d / sqrt(sigma^2 + sigma_d^2),
    c_in = 1 / sqrt(sigma^2 + sigma_d^2), c_noise = ln(sigma) / 4.

    Arguments, attributes and errors as of `ImageModel`: LearnedDenoiser(shape, config).
    """

    def forward(self, x: Tensor, sigma: float | Tensor, class_labels: Tensor | None = None) -> Tensor:
        """r(x; sigma), [B, C, H, W] in the dtype of x; sigma a number, 0-d, [B] or [B, 1, ...], > 0.

        class_labels must be None: the network is unconditional.
        """
        check_no_labels(class_labels)
        x, levels = self._inputs(x, sigma)
        if len(x) == 0:  # convolutions refuse it
            return x.clone()
        skip, out, scale, c = coefficients(levels)
        weights = next(self.parameters()).dtype
        answer = self.network((scale * x).to(weights), c.flatten().to(weights))
        return (skip * x + out * answer.to(levels.dtype)).to(x.dtype)

    def features(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """The network's inner features of x at noise level sigma, averaged over the picture: [B, 2 width]."""
        x, levels = self._inputs(x, sigma)
        _, _, scale, c = coefficients(levels)
        weights = next(self.parameters()).dtype
        return self.network.features((scale * x).to(weights), c.flatten().to(weights))

    def _inputs(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        x = check_query(x, self.shape, dtypes=FLOATING)
        levels = check_sigma(sigma, len(x), device=x.device)
        return x, levels.to(torch.promote_types(x.dtype, torch.float32)).reshape(-1, 1, 1, 1)


def coefficients(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(c_skip, c_out, c_in, c_noise) of each sigma, in its shape: see `LearnedDenoiser`."""
    total = sigma.square() + SIGMA_DATA**2
    return SIGMA_DATA**2 / total, sigma * SIGMA_DATA / total.sqrt(), total.rsqrt(), sigma.log() / 4
