"""Difference form in float64: what is left to do where no bound on a faster form suffices."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from geodiff.kernels.configs import INTERPRETED

# Pairs per program: few, so that a single query fills the GPU. The interpreter's time goes by the number of programs.
_PAIRS = 128 if INTERPRETED else 16
_COLUMNS = 64


@triton.jit
def centred(u):
    """Stored values as float64: v = u - 128 for uint8, else the value."""
    if u.dtype == tl.uint8:
        return u.to(tl.float64) - 128
    else:
        return u.to(tl.float64)


@triton.jit
def distances_kernel(
    x_ptr, rows_ptr, query_ptr, row_ptr, out_ptr, P, d,
    LISTED: tl.constexpr, PRODUCT: tl.constexpr, BP: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """out[p] = |x_q - v_r|^2 for listed pairs (q, r), or out[q, p] for every row p with q = program 1.

    PRODUCT: <x_q, v_r> instead.
    """
    p = tl.program_id(0).to(tl.int64) * BP + tl.arange(0, BP)
    k = tl.arange(0, BD)
    if LISTED:
        q = tl.load(query_ptr + p, mask=p < P, other=0)
        r = tl.load(row_ptr + p, mask=p < P, other=0)
    else:
        q = tl.zeros((BP,), tl.int64) + tl.program_id(1)
        r = p
    total = tl.zeros((BP,), tl.float64)
    for first in range(0, d, BD):
        here = (p[:, None] < P) & (k[None, :] < d - first)
        x = tl.load(x_ptr + q[:, None] * d + first + k[None, :], mask=here, other=0.0)
        v = centred(tl.load(rows_ptr + r[:, None] * d + first + k[None, :], mask=here, other=0))
        if PRODUCT:
            total += tl.sum(x * v, 1)  # x is 0 outside
        else:
            difference = tl.where(here, x - v, 0.0)
            total += tl.sum(difference * difference, 1)
    out = out_ptr + p if LISTED else out_ptr + tl.program_id(1).to(tl.int64) * P + p
    tl.store(out, total, mask=p < P)


@triton.jit
def full_sum_kernel(w_ptr, rows_ptr, out_ptr, C, d, BP: tl.constexpr, BD: tl.constexpr):
    """out[q] = sum over p < C of w[q, p] v_p."""
    q = tl.program_id(1).to(tl.int64)
    k = tl.program_id(0) * BD + tl.arange(0, BD)
    acc = tl.zeros((BD,), tl.float64)
    for first in range(0, C, BP):
        p = first + tl.arange(0, BP)
        w = tl.load(w_ptr + q * C + p, mask=p < C, other=0.0)
        here = (p[:, None] < C) & (k[None, :] < d)
        v = centred(tl.load(rows_ptr + p.to(tl.int64)[:, None] * d + k[None, :], mask=here, other=0))
        acc += tl.sum(w[:, None] * v, 0)  # w is 0 outside
    tl.store(out_ptr + q * d + k, acc, mask=k < d)


def pair_distances(x: Tensor, rows: Tensor, queries: Tensor, candidates: Tensor) -> Tensor:
    """|x_q - v_r|^2 of pairs (queries[p], candidates[p]), [P] float64; x [B, d] float64, rows [N, d] as stored."""
    out = torch.empty(len(queries), dtype=torch.float64, device=x.device)
    if len(queries):
        distances_kernel[(triton.cdiv(len(queries), _PAIRS),)](
            x, rows, queries, candidates, out, len(queries), x.shape[1],
            LISTED=True, PRODUCT=False, BP=_PAIRS, BD=_COLUMNS, enable_fp_fusion=True,
        )  # fmt: skip
    return out


def all_distances(x: Tensor, rows: Tensor) -> Tensor:
    """|x_b - v_i|^2 of every query and row, [B, C] float64."""
    return _all_pairs(x, rows, product=False)


def all_products(x: Tensor, rows: Tensor) -> Tensor:
    """<x_b, v_i> of every query and row, [B, C] float64."""
    return _all_pairs(x, rows, product=True)


def _all_pairs(x: Tensor, rows: Tensor, *, product: bool) -> Tensor:
    out = torch.empty(len(x), len(rows), dtype=torch.float64, device=x.device)
    distances_kernel[(triton.cdiv(len(rows), _PAIRS), len(x))](
        x, rows, x, x, out, len(rows), x.shape[1],
        LISTED=False, PRODUCT=product, BP=_PAIRS, BD=_COLUMNS, enable_fp_fusion=True,
    )  # fmt: skip
    return out


def full_sum(weights: Tensor, rows: Tensor) -> Tensor:
    """weights [B, C] float64 times rows [C, d], [B, d] float64."""
    (batch, count), d = weights.shape, rows.shape[1]
    out = torch.empty(batch, d, dtype=torch.float64, device=rows.device)
    full_sum_kernel[(triton.cdiv(d, _COLUMNS), batch)](
        weights, rows, out, count, d, BP=_PAIRS, BD=_COLUMNS, enable_fp_fusion=True
    )
    return out
