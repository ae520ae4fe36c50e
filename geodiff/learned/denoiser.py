"""A learned denoiser: a network behind EDM's preconditioning, called as the optimal one is."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from geodiff.base.arguments import check_query, check_sigma
from geodiff.base.dtypes import FLOATING
from geodiff.learned.network import UNet, UNetConfig, check_images

SIGMA_DATA = 0.5


class LearnedDenoiser(nn.Module):
    """r(x; sigma) = c_skip x + c_out F(c_in x; c_noise), Karras et al., 2206.00364, table 1, sigma_d = 0.5.

    c_skip = sigma_d^2 / (sigma^2 + sigma_d^2), c_out = sigma sigma_d / sqrt(sigma^2 + sigma_d^2),
    c_in = 1 / sqrt(sigma^2 + sigma_d^2), c_noise = ln(sigma) / 4.

    shape   (C, H, W) of the images
    config  size of the network; its channels must be C

    Attributes: shape, network, training_metadata (what a weights file says of its origin), and those that EDM's sampler
    reads: sigma_min, sigma_max, img_channels, img_resolution, label_dim. Raises TypeError or ValueError that names the
    argument.
    """

    sigma_min = 0.0
    sigma_max = math.inf
    label_dim = 0

    def __init__(self, shape: tuple[int, ...], config: UNetConfig | None = None) -> None:
        super().__init__()
        self.shape = check_images(shape)
        self.network = UNet(UNetConfig(shape[0]) if config is None else config.checked(self.shape))
        self.training_metadata: dict[str, object] = {}
        self.img_channels, self.img_resolution = self.shape[0], self.shape[2]

    def forward(self, x: Tensor, sigma: float | Tensor, class_labels: Tensor | None = None) -> Tensor:
        """r(x; sigma), [B, C, H, W] in the dtype of x; sigma a number, 0-d, [B] or [B, 1, ...], > 0.

        class_labels must be None: the network is unconditional.
        """
        if class_labels is not None:
            raise ValueError("class_labels: expected None, found labels; allowed None, the network is unconditional")
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

    @staticmethod
    def round_sigma(sigma: Any) -> Tensor:
        """sigma as a tensor: the network takes every level."""
        return torch.as_tensor(sigma)

    def _inputs(self, x: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor]:
        x = check_query(x, self.shape, dtypes=FLOATING)
        levels = check_sigma(sigma, len(x), device=x.device)
        return x, levels.to(torch.promote_types(x.dtype, torch.float32)).reshape(-1, 1, 1, 1)


def coefficients(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(c_skip, c_out, c_in, c_noise) of each sigma, in its shape: see `LearnedDenoiser`."""
    total = sigma.square() + SIGMA_DATA**2
    return SIGMA_DATA**2 / total, sigma * SIGMA_DATA / total.sqrt(), total.rsqrt(), sigma.log() / 4
