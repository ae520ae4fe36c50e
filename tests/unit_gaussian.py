"""Data from N(0, I): the smallest whose denoiser, and whose flow, are known in closed form."""

from torch import Tensor


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    """r(x; sigma) = x / (1 + sigma^2); its flow is x(sigma) = x(T) sqrt((sigma^2 + 1) / (T^2 + 1))."""
    return x / (1 + sigma**2)
