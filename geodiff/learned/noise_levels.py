"""Which noise levels or times a network is trained on, and how much an error counts at each."""

import math

import torch
from torch import Generator, Tensor

from geodiff.learned.denoiser import SIGMA_DATA

LOG_MEAN, LOG_DEVIATION = -1.2, 1.2
WIDE_MIN, WIDE_MAX = 0.002, 100.0
#: Nearer to the data a velocity is not defined; and float32 tells no time from 1 nearer than that.
TIMES = (1e-4, 1.0)


def draw(count: int, wide: float, generator: Generator) -> Tensor:
    """ln sigma ~ N(-1.2, 1.2^2) with probability 1 - wide, else uniform in ln 0.002 .. ln 100; sigma as [count].

    The normal is EDM's (Karras et al., 2206.00364, table 1). It draws a level above 10 once in 570 times, too seldom
    for a network of this size to learn the mean of the data and the first directions away from it, which is all that a
    trajectory follows from sigma = 80 to 10; the uniform part, which is ours, draws one in five there.
    """
    normal = LOG_MEAN + LOG_DEVIATION * torch.randn(count, generator=generator)
    low, high = math.log(WIDE_MIN), math.log(WIDE_MAX)
    uniform = low + (high - low) * torch.rand(count, generator=generator)
    return torch.where(torch.rand(count, generator=generator) < wide, uniform, normal).exp()


def draw_times(count: int, wide: float, generator: Generator) -> Tensor:
    """t = 1 / (1 + exp(-z)), z ~ N(0, 1), with probability 1 - wide, else uniform in 0 .. 1; [count].

    The logit-normal is that of Esser et al., 2403.03206.
    """
    normal = torch.randn(count, generator=generator).sigmoid()
    uniform = torch.rand(count, generator=generator)
    return torch.where(torch.rand(count, generator=generator) < wide, uniform, normal).clamp(*TIMES)


def weight(sigma: Tensor) -> Tensor:
    """(sigma^2 + sigma_d^2) / (sigma sigma_d)^2 = 1 / c_out^2: an error of the raw network counts alike at each level.

    Karras et al., 2206.00364, table 1, sigma_d = 0.5.
    """
    return (sigma.square() + SIGMA_DATA**2) / (sigma * SIGMA_DATA).square()
