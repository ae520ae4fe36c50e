"""What every adapter does: bring noise levels into the shape of the points, and points into the dtype of a network."""

import torch
from torch import Tensor, nn


def per_point(factor: Tensor, x: Tensor) -> Tensor:
    """factor [B] or 0-d as [B, 1, ...] or [1, ...], in the dtype and on the device of x [B, *shape]."""
    return factor.to(x.device, x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def dtype_of(network: object, otherwise: torch.dtype) -> torch.dtype:
    """The dtype of the parameters of a network, or `otherwise` for a function or a module without any."""
    parameters = network.parameters() if isinstance(network, nn.Module) else iter(())
    return next((p.dtype for p in parameters if p.is_floating_point()), otherwise)
