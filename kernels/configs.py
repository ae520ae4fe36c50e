"""The launch configurations, written down: few, and none of them changes the order of a sum.

A configuration has tile sizes, warps and pipeline stages. What decides how a result is rounded is fixed here for all of
them.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

#: Kernels run in Triton's interpreter, on the CPU. Read once: `triton.jit` decides when a module is imported.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "") == "1"
#: The interpreter keeps bfloat16 as raw 16-bit integers and would multiply those: widen there before a product.
WIDEN = tl.constexpr(INTERPRETED)

#: Columns that one float32 partial sum of an inner product runs over before it is added to a float64 one.
FLUSH = 64
#: Beyond so many columns int32 could overflow (128 * 128 * d < 2^31): fold every tile of columns into float64.
INT32_COLUMNS = 65536
#: Rows that one float32 weighted sum runs over; the splits are merged in float64.
SPLIT = 1024
#: Rows per tensor-core product of a weighted sum, whose float32 accumulator starts at zero each time.
STEP = 64
#: Rows of one launch: the second dimension of a grid holds 65535 tiles of 64 rows or more.
ROWS = 2**21
#: Queries up to which the narrow tiles are taken.
NARROW = 16


def _config(stages: int, warps: int, **tiles: int) -> triton.Config:
    return triton.Config(tiles, num_warps=warps, num_stages=stages)


# Tiles that only Hopper's wgmma, which keeps one operand in shared memory, can hold without spilling registers.
_BYTES_90 = _config(3, 8, BN=128, BB=64, BD=128)
_FLOATS_90 = _config(3, 8, BN=128, BB=64, BD=FLUSH)
_TWO_PARTS_90 = _config(3, 8, BB=64, BD=128)
HOPPER = (_BYTES_90, _FLOATS_90, _TWO_PARTS_90)
# Of these, those whose registers do not suffice for a bias of its own for every query.
WITHOUT_OWN_BIAS = (_BYTES_90, _FLOATS_90)

# By size: the last one that fits is taken. BN rows x BB queries per program, BD columns at a time (floats: BD = FLUSH).
LOGITS_BYTES = [_config(4, 4, BN=128, BB=16, BD=128), _config(3, 8, BN=128, BB=32, BD=64), _BYTES_90]
LOGITS_FLOATS = [_config(3, 4, BN=64, BB=16, BD=FLUSH), _config(3, 4, BN=64, BB=32, BD=FLUSH), _FLOATS_90]
# BB queries x BD columns per program, STEP rows at a time; by what one number of the product is split into.
TWO_PARTS = [_config(3, 4, BB=16, BD=128), _config(3, 4, BB=64, BD=64), _TWO_PARTS_90]
# Rows of two bytes, here and below: with four warps Triton 3.6 spills 16 bytes on sm_80.
TWO_PARTS_OF_HALVES = [_config(3, 4, BB=16, BD=128), _config(3, 8, BB=64, BD=64), _TWO_PARTS_90]
THREE_PARTS = [_config(3, 4, BB=16, BD=128), _config(3, 8, BB=64, BD=64)]
SIX_PARTS = [_config(3, 4, BB=16, BD=64), _config(3, 8, BB=32, BD=64)]
WEIGHTED_SUM = {
    torch.uint8: TWO_PARTS,
    torch.float16: TWO_PARTS_OF_HALVES,
    torch.bfloat16: THREE_PARTS,
    torch.float32: SIX_PARTS,
}


def fitting(configs: list[triton.Config], batch: int, capability: int, bias: int = 0) -> list[triton.Config]:
    """Those of `configs` for so many queries (the narrow ones up to NARROW) on a chip sm_<capability>.

    bias: as the first product takes it, 2 for one of its own for every query.
    """
    narrow = [config for config in configs if (config.kwargs["BB"] <= NARROW) == (batch <= NARROW)]
    spill = () if capability >= 90 else HOPPER
    if bias == 2:
        spill = (*spill, *WITHOUT_OWN_BIAS)
    return [config for config in narrow if not any(config is large for large in spill)]


def configured(configs: list[triton.Config]) -> Callable[[Any], "Configured"]:
    """Decorates a kernel that is launched with B by name: it takes the largest fitting configuration."""
    return lambda kernel: Configured(kernel, configs)


class Configured:
    """A kernel whose launches look up their tiles: the chip and the batch decide, and no timing.

    What was timed would be kept for sizes that nobody timed, and the first call would take seconds.
    """

    def __init__(self, kernel: Any, configs: list[triton.Config]) -> None:
        self.fn, self.configs = kernel, configs

    def __getitem__(self, grid: Callable[[dict[str, Any]], tuple[int, ...]]) -> Callable[..., None]:
        def launch(*arguments: Any, **named: Any) -> None:
            config = self.chosen(named["B"], named.get("BIAS", 0))
            hints = {"num_warps": config.num_warps, "num_stages": config.num_stages}
            self.fn[grid(config.kwargs)](*arguments, **named, **config.kwargs, **hints)

        return launch

    def chosen(self, batch: int, bias: int) -> triton.Config:
        """For so many queries on the current device; bias: as the first product takes it."""
        return fitting(self.configs, batch, _capability(), bias)[-1]


def _capability() -> int:
    """80 for sm_80; of the interpreter, which has no tensor cores, that of the oldest chip."""
    if INTERPRETED:
        return 80
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor
