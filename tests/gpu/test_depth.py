"""How many products this GPU's tensor cores sum at once, and what they cut off: `kernels/bounds.py` counts on both."""

from typing import Any

import pytest
import torch

from tests.gpu.needed import need_backend

SIDE = 64


def dots() -> Any:
    """c = a b by one tensor-core product of SIDE numbers, with float32 sums."""
    import triton
    import triton.language as tl

    @triton.jit
    def kernel(a_ptr, b_ptr, c_ptr, SIDE: tl.constexpr):
        i, k = tl.arange(0, SIDE)[:, None], tl.arange(0, SIDE)[None, :]
        a, b = tl.load(a_ptr + i * SIDE + k), tl.load(b_ptr + i * SIDE + k)
        tl.store(c_ptr + i * SIDE + k, tl.dot(a, b, out_dtype=tl.float32))

    return kernel


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("warps", [1, 4])  # mma, and on sm_90 wgmma
def test_sums_lose_no_more_than_is_reckoned_with(dtype: torch.dtype, warps: int, device: torch.device) -> None:
    """One 1 among numbers that are lost beside it, at every place; and numbers of very different sizes."""
    need_backend("triton")
    from geodiff.kernels.bounds import CUT, DEPTH

    ones = torch.full((SIDE, SIDE), 2.0**-12).fill_diagonal_(1.0)  # row i: 1 at place i
    small = torch.full((SIDE, SIDE), 2.0**-12).fill_diagonal_(1.0)
    sizes = torch.randint(-12, 1, (2, SIDE, SIDE)).float().exp2() * (1 + torch.rand(2, SIDE, SIDE))
    kernel = dots()
    for a, b in ((ones, small), (sizes[0], sizes[1]), (sizes[0], -sizes[1])):
        a, b = a.to(device, dtype), b.to(device, dtype)
        c = torch.empty(SIDE, SIDE, device=device)
        kernel[(1,)](a, b, c, SIDE=SIDE, num_warps=warps)
        exact, size = a.double() @ b.double(), a.double().abs() @ b.double().abs()
        worst = float(((c.double() - exact).abs() / size).max())
        assert worst <= SIDE / DEPTH * CUT, f"{worst / CUT:.2f} units lost, {SIDE / DEPTH:.0f} reckoned with"
