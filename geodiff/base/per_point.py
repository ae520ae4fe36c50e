"""One number for each point, beside the points."""

from torch import Tensor


def per_point(factor: Tensor, x: Tensor) -> Tensor:
    """factor [B] or 0-d as [B, 1, ...] or [1, ...], with the axes of x [B, *shape]."""
    return factor.reshape(-1, *[1] * (x.ndim - 1))
