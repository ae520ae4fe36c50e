"""What learned denoisers and learned flows have in common: a network over images, and what samplers read of it."""

from torch import Tensor

from geodiff.denoiser.network_interface import LikeNetwork
from geodiff.learned.network import UNet, UNetConfig, check_images


class ImageModel(LikeNetwork):
    """A network for images of one shape, without labels, at every noise level.

    shape   (C, H, W) of the images
    config  size of the network; its channels must be C

    Attributes: shape, network, training_metadata (what a weights file says of its origin), and those that EDM's sampler
    reads: sigma_min, sigma_max, img_channels, img_resolution, label_dim. Raises TypeError or ValueError that names the
    argument.
    """

    label_dim = 0

    def __init__(self, shape: tuple[int, ...], config: UNetConfig | None = None) -> None:
        super().__init__()
        self._shape = check_images(shape)
        self.network = UNet(UNetConfig(shape[0]) if config is None else config.checked(self._shape))
        self.training_metadata: dict[str, object] = {}

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return self._shape


def check_no_labels(class_labels: Tensor | None) -> None:
    """ValueError for labels: the networks are unconditional."""
    if class_labels is not None:
        raise ValueError("class_labels: expected None, found labels; allowed None, the network is unconditional")
