"""Random numbers that are the same whenever a test asks for them."""

import torch
from torch import Tensor


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """From N(0, 1), float64."""
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)
