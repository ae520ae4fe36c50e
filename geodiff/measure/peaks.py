"""What this machine could do, and how near our calls come: products in registers, reading of memory, whole calls."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from geodiff.backends import cpu
from geodiff.denoiser.module import OptimalDenoiser
from geodiff.measure.stopwatch import settled
from geodiff.reference.formula import model_space


@dataclass(frozen=True)
class Peaks:
    """Of one instruction set, all threads together.

    float32  1e9 multiply-adds per second in registers
    integer  the same of the exact products of uint8 data; None where there are none
    read     1e9 bytes per second, from memory
    """

    isa: str
    threads: int
    float32: float
    integer: float | None
    read: float


@dataclass(frozen=True)
class Call:
    """A whole call beside the peaks: its two products are 2 B N d multiply-adds, and it reads N d values once.

    products  1e9 multiply-adds per second, as if the call were its products alone
    share     of the peak that the data's dtype has: of integers for uint8 where there are any, else of float32
    read      1e9 bytes of data per second        share_read  of what memory gives
    """

    isa: str
    sigma: float
    batch: int
    milliseconds: float
    products: float
    share: float
    read: float
    share_read: float


def peaks(isa: str) -> Peaks:
    """Measured now, with as many threads as PyTorch has; takes about a second."""
    threads = torch.get_num_threads()
    float32, integer, read = cpu.peaks(isa, threads)
    return Peaks(isa, threads, float32 / 1e9, integer / 1e9 or None, read / 1e9)


def calls(
    denoiser: OptimalDenoiser, limits: Peaks, cells: Sequence[tuple[float, int]], rounds: int, seed: int = 0
) -> list[Call]:
    """Medians over `rounds` calls of `denoiser` on the instruction set of `limits`.

    Each cell (sigma, B) takes B noisy data points.
    """
    data, generator = denoiser.data, torch.Generator().manual_seed(seed)
    work, size = 2 * data.numel() / 1e9, data.numel() * data.element_size() / 1e9
    peak = limits.integer if data.dtype == torch.uint8 and limits.integer else limits.float32
    found = []
    with cpu.use_isa(limits.isa):
        for sigma, batch in cells:
            chosen = torch.randint(len(data), (batch,), generator=generator)
            clean = model_space(data[chosen], torch.float32)
            x = clean + sigma * torch.randn(clean.shape, generator=generator)
            seconds = statistics.median(settled(partial(denoiser, x, sigma))[1] for _ in range(rounds))
            products, read = batch * work / seconds, size / seconds
            found.append(
                Call(limits.isa, sigma, batch, 1e3 * seconds, products, products / peak, read, read / limits.read)
            )
    return found
