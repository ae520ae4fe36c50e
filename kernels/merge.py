"""Joining partial softmax sums by log-sum-exp in float64."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from geodiff.kernels.weighted_sum import STATE

_COLUMNS = 128
_PIECES = 8


@triton.jit
def merge_kernel(
    sums_ptr, state_ptr, acc_ptr, kept_ptr, acc_out_ptr, kept_out_ptr, mean_ptr,
    B, S, stride, d, shift, unit, FIRST: tl.constexpr, LAST: tl.constexpr, SB: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """One query and BD columns per program; see `Running`. stride = S B."""
    b = tl.program_id(1).to(tl.int64)
    k = tl.program_id(0) * BD + tl.arange(0, BD)
    s = tl.arange(0, SB)
    top = tl.full((SB,), float("-inf"), tl.float64)
    for first in range(0, S, SB):
        here = first + s < S
        top = tl.maximum(top, tl.load(state_ptr + (first + s).to(tl.int64) * B + b, mask=here, other=float("-inf")))
    m = tl.max(top, 0)
    acc = tl.zeros((BD,), tl.float64)
    t1 = tl.full((), 0.0, tl.float64)
    t2, t3, t4, t5 = t1, t1, t1, t1
    if not FIRST:
        m_old = tl.load(kept_ptr + b)
        m = tl.maximum(m, m_old)
        gap_old = m_old - tl.where(m == float("-inf"), 0.0, m)
        f_old = tl.exp(gap_old)
        sum_old = f_old * tl.load(kept_ptr + B + b)
        acc = f_old * tl.load(acc_ptr + b * d + k, mask=k < d, other=0.0)
        t1 = sum_old
        t2 = f_old * tl.load(kept_ptr + 2 * B + b) + tl.where(f_old > 0, gap_old, 0.0) * sum_old
        t3 = f_old * f_old * tl.load(kept_ptr + 3 * B + b)
        t4 = f_old * tl.load(kept_ptr + 4 * B + b)
        t5 = f_old * tl.load(kept_ptr + 5 * B + b)
    # -inf - -inf would be NaN.
    base = tl.where(m == float("-inf"), 0.0, m)
    for first in range(0, S, SB):
        here = first + s < S
        at = state_ptr + (first + s).to(tl.int64) * B + b
        m_s = tl.load(at, mask=here, other=float("-inf"))
        gap = m_s - base
        f = tl.exp(gap)  # [SB]
        sum_s = tl.load(at + stride, mask=here, other=0.0)
        t1 += tl.sum(f * sum_s, 0)
        # 0 times an infinite gap would be NaN.
        t2 += tl.sum(f * (tl.load(at + 2 * stride, mask=here, other=0.0) + tl.where(f > 0, gap, 0.0) * sum_s), 0)
        t3 += tl.sum(f * f * tl.load(at + 3 * stride, mask=here, other=0.0), 0)
        t4 += tl.sum(f * tl.load(at + 4 * stride, mask=here, other=0.0), 0)
        t5 += tl.sum(f * tl.load(at + 5 * stride, mask=here, other=0.0), 0)
        part = sums_ptr + ((first + s).to(tl.int64) * B + b)[:, None] * d + k[None, :]
        v = tl.load(part, mask=here[:, None] & (k[None, :] < d), other=0.0)  # [SB, BD]
        acc += tl.sum(f[:, None] * v.to(tl.float64), 0)
    if tl.program_id(0) == 0:
        tl.store(kept_out_ptr + b, m)
        tl.store(kept_out_ptr + B + b, t1)
        tl.store(kept_out_ptr + 2 * B + b, t2)
        tl.store(kept_out_ptr + 3 * B + b, t3)
        tl.store(kept_out_ptr + 4 * B + b, t4)
        tl.store(kept_out_ptr + 5 * B + b, t5)
    if LAST:
        mean = (acc / t1 + shift) / unit
        tl.store(mean_ptr + b * d + k, mean, mask=k < d)
    else:
        tl.store(acc_out_ptr + b * d + k, acc, mask=k < d)


class Running:
    """sum_i exp(l_i - m) v_i over the splits seen so far, and the softmax state that belongs to it.

    state [STATE, B] float64: m and the sums of p, p (l - m), p^2, p h and p c. `mean` [B, d] float64 is complete after
    the merge that was told it is the last: (sum p v / sum p + shift) / unit, which is r in model space.
    """

    def __init__(self, batch: int, d: int, shift: float, unit: float, device: torch.device) -> None:
        self._shift, self._unit = shift, unit
        self._old, self._new = (torch.empty(batch, d, dtype=torch.float64, device=device) for _ in range(2))
        self._kept, self.state = (torch.empty(STATE, batch, dtype=torch.float64, device=device) for _ in range(2))
        self._first = True
        self.mean = self._new

    def merge(self, sums: Tensor, state: Tensor, *, last: bool) -> None:
        """Takes in sums [S, B, d] and state [STATE, S, B] of `weighted_sum`."""
        pieces, batch, d = sums.shape
        self._old, self._new = self._new, self._old
        self._kept, self.state = self.state, self._kept
        self.mean = self._new
        merge_kernel[(triton.cdiv(d, _COLUMNS), batch)](
            sums, state, self._old, self._kept, self._new, self.state, self.mean,
            batch, pieces, pieces * batch, d, self._shift, self._unit,
            FIRST=self._first, LAST=last, SB=_PIECES, BD=_COLUMNS, enable_fp_fusion=True,
        )  # fmt: skip
        self._first = False
