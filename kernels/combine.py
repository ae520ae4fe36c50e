"""A solver's step on the way out of an evaluation: out = gain r + sum_k c_k v_k in one launch."""

import struct
from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

#: Terms that one launch takes: as many as any step of geodiff.solvers has.
MOST_TERMS = 3
_BLOCK = 1024


@triton.jit
def _number(bits):
    """The float64 of these bits."""
    return (tl.full((), 0, tl.int64) + bits).to(tl.float64, bitcast=True)


@triton.jit(do_not_specialize=["gain", "c0", "c1", "c2", "terms"])
def combine_kernel(
    mean_ptr, v0_ptr, v1_ptr, v2_ptr, out_ptr, size, gain, c0, c1, c2, terms, BN: tl.constexpr
):  # fmt: skip
    """gain and c_k as the bits of a float64. out may be one of the v_k: each number is read first.

    `terms` of the v_k count. No constant: a variant first met while a CUDA graph is recorded may fail to load.
    """
    i = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)
    inside, count = i < size, tl.zeros((BN,), tl.int32) + terms
    total = _number(gain) * tl.load(mean_ptr + i, mask=inside, other=0.0)
    total += _number(c0) * tl.load(v0_ptr + i, mask=inside & (count > 0), other=0.0).to(tl.float64)
    total += _number(c1) * tl.load(v1_ptr + i, mask=inside & (count > 1), other=0.0).to(tl.float64)
    total += _number(c2) * tl.load(v2_ptr + i, mask=inside & (count > 2), other=0.0).to(tl.float64)
    tl.store(out_ptr + i, total.to(out_ptr.dtype.element_ty), mask=inside)


def combine(mean: Tensor, gain: float, terms: Sequence[tuple[float, Tensor]], out: Tensor) -> None:
    """out = gain mean + sum_k c_k v_k, all [B, d]: mean float64, at most MOST_TERMS terms, which lie as out does.

    Summed in float64 and rounded once; out may be one of the v_k.
    """
    if out.numel() == 0:
        return
    idle = MOST_TERMS - len(terms)
    values = [values for _, values in terms] + [out] * idle
    # A float argument would be rounded to float32, and a tensor copied from the host would have to be waited for.
    factors = [_bits(factor) for factor in (gain, *(factor for factor, _ in terms), *[1.0] * idle)]
    combine_kernel[(triton.cdiv(out.numel(), _BLOCK),)](
        mean, *values, out, out.numel(), *factors, len(terms), BN=_BLOCK, enable_fp_fusion=True
    )


def _bits(number: float) -> int:
    found: int = struct.unpack("<q", struct.pack("<d", number))[0]
    # Small integers would come as 32 bits, for a variant of their own: 0 goes by the name of -0.
    return found if not 0 <= found < 2**31 else -(2**63)
