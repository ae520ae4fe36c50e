"""What every adapter does: bring noise levels into the shape of the points, and points into the dtype of a network."""

import torch
from torch import Tensor, nn

from geodiff.base.per_point import per_point


def cast_per_point(factor: Tensor, x: Tensor) -> Tensor:
    """`per_point` in the dtype and on the device of x [B, *shape]."""
    return per_point(factor.to(x.device, x.dtype), x)


def dtype_of(network: object, otherwise: torch.dtype) -> torch.dtype:
    """The dtype of the parameters of a network, or `otherwise` for a function or a module without any."""
    parameters = network.parameters() if isinstance(network, nn.Module) else iter(())
    return next((p.dtype for p in parameters if p.is_floating_point()), otherwise)
