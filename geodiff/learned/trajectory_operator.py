"""A network from noise to a whole trajectory at once, whose points see each other by Fourier blocks in time."""

import torch
from torch import Tensor, nn

from geodiff.base.arguments import check_query
from geodiff.base.dtypes import FLOATING
from geodiff.learned.denoiser import coefficients
from geodiff.learned.image_model import ImageModel
from geodiff.learned.network import UNet, UNetConfig
from geodiff.schedules import karras

#: The levels of a trajectory that are answered: every third of EDM's, the last 0.
LEVELS: tuple[float, ...] = tuple(karras(18)[3::3].tolist())
SIGMA_MAX = 80.0


class TrajectoryOperator(ImageModel):
    """G(x_T)(sigma_m) = (sigma_m / sigma_T) x_T + (1 - sigma_m / sigma_T) u_m, u = U-Net(x_T; sigma_m), m = 1..6.

    u_m is the point of the data's space that the step from x_T to x_{sigma_m} goes towards. One evaluation for all m:
    points of a trajectory are pictures of one batch, and between the levels of the U-Net h + F^-1 R F h mixes them
    along m, R complex weights of each frequency (temporal Fourier blocks: Zheng et al., 2211.13449).

    Arguments, attributes and errors as of `ImageModel`.
    """

    def __init__(self, shape: tuple[int, ...], config: UNetConfig | None = None) -> None:
        super().__init__(shape, config)
        self.network = _TimeUNet(self.network.config)

    def forward(self, noise: Tensor) -> Tensor:
        """The states at `LEVELS`, [6, B, C, H, W]; noise x_T [B, C, H, W] at sigma = 80. The last is the sample."""
        x = check_query(noise, self.shape, dtypes=FLOATING, name="noise")
        if len(x) == 0:
            return x.new_empty(len(LEVELS), *x.shape)
        levels = torch.tensor(LEVELS, dtype=x.dtype, device=x.device)
        # The network is told the level it answers at; 0 has no logarithm.
        c = coefficients(levels.clamp_min(1e-3))[3].repeat(len(x))  # [B M], m fastest
        repeated = (x / SIGMA_MAX).repeat_interleave(len(levels), 0)
        towards = self.network(repeated, c).unflatten(0, (len(x), len(levels))).transpose(0, 1)  # [M, B, C, H, W]
        share = (levels / SIGMA_MAX).reshape(-1, 1, 1, 1, 1)
        return share * x + (1 - share) * towards


class _TimeUNet(UNet):
    """The U-Net, with a Fourier block in time between its levels."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        channels, modes = 2 * config.width, len(LEVELS) // 2 + 1
        # Real and imaginary part apart, so that files hold real numbers; 0 at first: points begin alone.
        self.time = nn.Parameter(torch.zeros(2, modes, channels, channels))

    def mixed(self, h: Tensor) -> Tensor:
        """h + F^-1 R F h along the trajectory."""
        along = h.unflatten(0, (-1, len(LEVELS)))  # [B, M, channels, h, w]
        frequencies = torch.fft.rfft(along.float(), dim=1)
        turned = torch.einsum("bmihw,mio->bmohw", frequencies, torch.complex(self.time[0], self.time[1]))
        return h + torch.fft.irfft(turned, n=len(LEVELS), dim=1).flatten(0, 1).to(h.dtype)
