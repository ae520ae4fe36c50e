"""The launch configurations, written down: few, and none of them changes the order of a sum.

Tuned are tile sizes, warps and pipeline stages. What decides how a result is rounded is fixed here for all of them, so
that the same input gives the same bits whichever configuration wins on a machine.
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
ROWS = 2**20
#: Queries up to which the narrow tiles are tried.
NARROW = 16


def _config(stages: int, warps: int, **tiles: int) -> triton.Config:
    return triton.Config(tiles, num_warps=warps, num_stages=stages)


# Tiles that only Hopper's wgmma, which keeps one operand in shared memory, can hold without spilling registers.
_BYTES_90 = _config(3, 8, BN=128, BB=64, BD=128)
_FLOATS_90 = _config(3, 8, BN=128, BB=64, BD=FLUSH)
_TWO_PARTS_90 = _config(3, 8, BB=64, BD=128)
HOPPER = (_BYTES_90, _FLOATS_90, _TWO_PARTS_90)
# Of these, the one whose registers do not suffice for a bias of its own for every query.
WITHOUT_OWN_BIAS = _FLOATS_90

# BN rows x BB queries per program, BD columns at a time (float data: BD = FLUSH).
LOGITS_BYTES = [_config(4, 4, BN=128, BB=16, BD=128), _config(3, 8, BN=128, BB=32, BD=64), _BYTES_90]
LOGITS_FLOATS = [_config(3, 4, BN=64, BB=16, BD=FLUSH), _config(3, 4, BN=64, BB=32, BD=FLUSH), _FLOATS_90]
# BB queries x BD columns per program, STEP rows at a time; by what one number of the product is split into.
TWO_PARTS = [_config(3, 4, BB=16, BD=128), _config(3, 4, BB=64, BD=64), _TWO_PARTS_90]
THREE_PARTS = [_config(3, 4, BB=16, BD=128), _config(3, 4, BB=64, BD=64)]
SIX_PARTS = [_config(3, 4, BB=16, BD=64), _config(3, 8, BB=32, BD=64)]
WEIGHTED_SUM = {
    torch.uint8: TWO_PARTS,
    torch.float16: TWO_PARTS,
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
        spill = (*spill, WITHOUT_OWN_BIAS)
    return [config for config in narrow if not any(config is large for large in spill)]


def tuned(configs: list[triton.Config], key: list[str]) -> Callable[[Any], Any]:
    """Decorates a kernel that is launched with B by name: the fastest fitting configuration is found once per `key`.

    `key` must tell narrow batches from wide ones. In the interpreter, where there is nothing to time, the first fitting
    configuration is taken.
    """

    def prune(found: list[triton.Config], _: dict[str, Any], **named: Any) -> list[triton.Config]:
        major, minor = torch.cuda.get_device_capability()
        return fitting(found, named["B"], 10 * major + minor, named.get("BIAS", 0))

    def decorate(kernel: Any) -> Any:
        if INTERPRETED:
            return _First(kernel, configs)
        return triton.autotune(configs=configs, key=key, prune_configs_by={"early_config_prune": prune})(kernel)

    return decorate


class _First:
    """A kernel that is launched with the first fitting configuration."""

    def __init__(self, kernel: Any, configs: list[triton.Config]) -> None:
        self.fn, self.configs = kernel, configs

    def __getitem__(self, grid: Callable[[dict[str, Any]], tuple[int, ...]]) -> Callable[..., None]:
        def launch(*arguments: Any, **named: Any) -> None:
            tiles = fitting(self.configs, named["B"], 80)[0].kwargs
            self.fn[grid(tiles)](*arguments, **named, **tiles)

        return launch
