"""What samplers read off a denoising network, for a denoiser that takes the place of one: EDM's, and those after it."""

import math
from typing import Any

import torch
from torch import Tensor, nn


class LikeNetwork(nn.Module):
    """sigma_min, sigma_max, img_channels, img_resolution and round_sigma, as EDM's networks have them."""

    sigma_min = 0.0
    sigma_max = math.inf

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one data point."""
        raise NotImplementedError

    @property
    def img_channels(self) -> int:
        """C of a shape [C, H, W]; AttributeError for data that are not images."""
        return self._image_shape()[0]

    @property
    def img_resolution(self) -> int:
        """W of a shape [C, H, W]; AttributeError for data that are not images."""
        return self._image_shape()[2]

    def _image_shape(self) -> tuple[int, ...]:
        if len(self.shape) != 3:
            raise AttributeError(f"data points of shape {self.shape} are not images [C, H, W]")
        return self.shape

    @staticmethod
    def round_sigma(sigma: Any) -> Tensor:
        """sigma as a tensor: every level is allowed (a network trained on a grid of levels would round here)."""
        return torch.as_tensor(sigma)
