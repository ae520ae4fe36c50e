"""The raw network inside the learned denoiser: a U-Net small enough to train on two processor cores."""

import math
from dataclasses import dataclass
from typing import Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geodiff.base.arguments import check_integer

Layer = TypeVar("Layer", bound=nn.Module)

_GROUPS = 8


@dataclass(frozen=True)
class UNetConfig:
    """The size of a `UNet`, all that is needed to build one anew.

    channels  C of the images [C, H, W]
    width     channels of the outer level, a multiple of 8; the inner level has twice as many
    patch     pixels to a side that are folded into channels first (space to depth): the convolutions work on H / patch

    Raises TypeError or ValueError that names the field.
    """

    channels: int
    width: int = 48
    patch: int = 2

    def __post_init__(self) -> None:
        check_integer(self.channels, "channels", 1)
        check_integer(self.patch, "patch", 1, 8)
        if check_integer(self.width, "width", _GROUPS) % _GROUPS:
            raise ValueError(f"width: expected a multiple of {_GROUPS}, found {self.width}; allowed 8, 16, 24, ...")

    def checked(self, shape: tuple[int, int, int]) -> Self:
        """Itself, once it is known to be for images of that shape; else ValueError."""
        if self.channels != shape[0]:
            raise ValueError(f"config: expected channels = {shape[0]}, as shape says, found {self.channels}")
        return self


def check_images(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(C, H, W) as integers; TypeError or ValueError for another shape."""
    if len(shape) != 3:
        raise ValueError(f"shape: expected (C, H, W) of images, found {tuple(shape)}; allowed three dimensions")
    channels, height, width = (check_integer(size, "shape", 1) for size in shape)
    return channels, height, width


class UNet(nn.Module):
    """F(x, c): [B, C, H, W], [B] -> [B, C, H, W], two levels with skips, attention at the inner one.

    Any H and W: the image is padded to a multiple of 2 patch by repeating its edge, and cropped again. The last layer
    starts at 0, so an untrained network answers 0.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        outer, inner, pixels = config.width, 2 * config.width, config.channels * config.patch**2
        embedding = 4 * config.width
        self.noise = nn.Sequential(_Fourier(config.width), nn.Linear(config.width, embedding), nn.SiLU())
        self.stem = nn.Conv2d(pixels, outer, 3, padding=1)
        self.down_outer = _Residual(outer, outer, embedding)
        self.shrink = nn.Conv2d(outer, inner, 3, stride=2, padding=1)
        self.down_inner = _Residual(inner, inner, embedding)
        self.middle_in = _Residual(inner, inner, embedding)
        self.attention = _Attention(inner)
        self.middle_out = _Residual(inner, inner, embedding)
        self.up_inner = _Residual(2 * inner, inner, embedding)
        self.grow = nn.Conv2d(inner, outer, 3, padding=1)
        self.up_outer = _Residual(2 * outer, outer, embedding)
        self.head_norm = nn.GroupNorm(_GROUPS, outer)
        self.head = _zeroed(nn.Conv2d(outer, pixels, 3, padding=1))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """F(x, c), [B, C, H, W]; c [B] tells the noise level."""
        height, width = x.shape[2:]
        embedding = self.noise(c)  # [B, 4 width]
        outer, inner, h = self._down(x, embedding)
        h = self.mixed(h)
        h = self.up_inner(torch.cat([h, inner], 1), embedding)
        h = self.grow(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        h = self.up_outer(torch.cat([h, outer], 1), embedding)
        h = self.head(F.silu(self.head_norm(h)))
        return F.pixel_shuffle(h, self.config.patch)[:, :, :height, :width]

    def mixed(self, h: Tensor) -> Tensor:
        """h itself, [B, 2 width, h, w]: where a network of whole trajectories lets their points see each other."""
        return h

    def features(self, x: Tensor, c: Tensor) -> Tensor:
        """The inner level before the way up, averaged over the picture: [B, 2 width], a summary of what x shows."""
        return self._down(x, self.noise(c))[2].mean((2, 3))

    def _down(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The two levels that the way up takes again, and what lies between them."""
        height, width = x.shape[2:]
        cell = 2 * self.config.patch
        x = F.pad(x, (0, -width % cell, 0, -height % cell), mode="replicate")
        outer = self.down_outer(self.stem(F.pixel_unshuffle(x, self.config.patch)), embedding)
        inner = self.down_inner(self.shrink(outer), embedding)
        return outer, inner, self.middle_out(self.attention(self.middle_in(inner, embedding)), embedding)


class _Fourier(nn.Module):
    """c -> cos and sin of c at frequencies from 1 to 64, evenly in their logarithm, [B, size]."""

    frequencies: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.logspace(0, math.log10(64), size // 2), persistent=False)

    def forward(self, c: Tensor) -> Tensor:
        angle = c[:, None] * self.frequencies
        return torch.cat([angle.cos(), angle.sin()], 1)


class _Residual(nn.Module):
    """x + conv(silu(norm(conv(silu(norm x))) (1 + scale) + shift)), scale and shift from the noise level."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(_GROUPS, inputs)
        self.conv_in = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulation = _zeroed(nn.Linear(embedding, 2 * outputs))
        self.norm_out = nn.GroupNorm(_GROUPS, outputs)
        self.conv_out = _zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, 1)
        h = self.norm_out(self.conv_in(F.silu(self.norm_in(x)))) * (1 + scale) + shift
        return self.skip(x) + self.conv_out(F.silu(h))


class _Attention(nn.Module):
    """x + W softmax(q k^T / sqrt(channels)) v over all positions, one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, 2)  # [B, positions, channels]
        mixed = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(mixed.transpose(1, 2).reshape(x.shape))


def _zeroed(layer: Layer) -> Layer:
    """The layer with weights 0: a block that starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
