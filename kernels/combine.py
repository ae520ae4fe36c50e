"""A solver's step on the way out of an evaluation: out = gain r + sum_k c_k v_k in one launch."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Terms that one launch takes: as many as any step of geodiff.solvers has.
MOST_TERMS = 3
_BLOCK = 1024


@triton.jit
def combine_kernel(mean_ptr, factors_ptr, v0_ptr, v1_ptr, v2_ptr, out_ptr, size, TERMS: tl.constexpr, BN: tl.constexpr):
    """factors [1 + TERMS] float64: the gain, then the c_k. out may be one of the v_k: each number is read first."""
    i = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)
    inside = i < size
    total = tl.load(factors_ptr) * tl.load(mean_ptr + i, mask=inside, other=0.0)
    if TERMS > 0:
        total += tl.load(factors_ptr + 1) * tl.load(v0_ptr + i, mask=inside, other=0.0).to(tl.float64)
    if TERMS > 1:
        total += tl.load(factors_ptr + 2) * tl.load(v1_ptr + i, mask=inside, other=0.0).to(tl.float64)
    if TERMS > 2:
        total += tl.load(factors_ptr + 3) * tl.load(v2_ptr + i, mask=inside, other=0.0).to(tl.float64)
    tl.store(out_ptr + i, total.to(out_ptr.dtype.element_ty), mask=inside)


def combine(mean: Tensor, gain: float, terms: Sequence[tuple[float, Tensor]], out: Tensor) -> None:
    """out = gain mean + sum_k c_k v_k, all [B, d]: mean float64, at most MOST_TERMS terms, which lie as out does.

    Summed in float64 and rounded once; out may be one of the v_k.
    """
    if out.numel() == 0:
        return
    factors = torch.tensor([gain, *(factor for factor, _ in terms)], dtype=torch.float64, device=out.device)
    values = [values for _, values in terms] + [out] * (MOST_TERMS - len(terms))
    combine_kernel[(triton.cdiv(out.numel(), _BLOCK),)](
        mean, factors, *values, out, out.numel(), TERMS=len(terms), BN=_BLOCK, enable_fp_fusion=True
    )
