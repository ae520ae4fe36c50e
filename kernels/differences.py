"""What kernels in float64 differences have in common: logits of marked rows, sums over rows, parts that are joined."""

import triton
import triton.language as tl

from geodiff.kernels.configs import INTERPRETED
from geodiff.kernels.refine import centred
from geodiff.kernels.weighted_sum import WORD

ROWS_AT_ONCE = 16 if not INTERPRETED else WORD  # of a tile, which lie in one word of marks
COLUMNS = 128 if not INTERPRETED else 512
FEWER_COLUMNS = COLUMNS // 2  # for as many there are registers beside running sums
MERGED_COLUMNS, MERGED_PARTS = 128, 8
_PARTS = 256 if not INTERPRETED else 4  # shares of the rows at most, each a program of its own
_SUMS = 2**24  # numbers in their sums


@triton.jit
def marked(mark_ptr, b, row, n, mark_stride, WORD: tl.constexpr):
    """Which of `row` [BP] may count for query b, by their marks."""
    words = tl.load(mark_ptr + b * mark_stride + row // WORD, mask=row < n, other=0)
    return ((words >> (row % WORD).to(tl.int32)) & 1) > 0


@triton.jit
def squares(x_ptr, rows_ptr, b, row, there, d, BP: tl.constexpr, BD: tl.constexpr):
    """|x_b - v_row|^2 [BP] float64 of the rows that are there."""
    k = tl.arange(0, BD)
    total = tl.zeros((BP,), tl.float64)
    for column in range(0, d, BD):
        here = there[:, None] & (k[None, :] < d - column)
        x = tl.load(x_ptr + b * d + column + k, mask=k < d - column, other=0.0)[None, :]
        v = centred(tl.load(rows_ptr + row[:, None] * d + column + k[None, :], mask=here, other=0))
        difference = tl.where(here, x - v, 0.0)
        total += tl.sum(difference * difference, 1)
    return total


@triton.jit
def biases(bias_ptr, b, row, there, bias_stride, BIAS: tl.constexpr, BP: tl.constexpr):
    """The bias [BP] of each row for query b. BIAS: 0 none, 1 for all queries, 2 one row for each."""
    bias = tl.zeros((BP,), tl.float64)
    if BIAS > 0:
        at = bias_ptr + row if BIAS == 1 else bias_ptr + b * bias_stride + row
        bias = tl.load(at, mask=there, other=0.0)
    return bias


@triton.jit
def add_rows(acc_ptr, rows_ptr, weight, scale, row, there, d, BD: tl.constexpr):
    """acc [d] = scale acc + sum over rows of weight v; a weight is 0 where no row is."""
    k = tl.arange(0, BD)
    tl.debug_barrier()  # what other threads of this program wrote
    for column in range(0, d, BD):
        here = there[:, None] & (k[None, :] < d - column)
        v = centred(tl.load(rows_ptr + row[:, None] * d + column + k[None, :], mask=here, other=0))
        sum_ = scale * tl.load(acc_ptr + column + k, mask=k < d - column, other=0.0)
        sum_ += tl.sum(weight[:, None] * v, 0)
        tl.store(acc_ptr + column + k, sum_, mask=k < d - column)
    tl.debug_barrier()


@triton.jit
def clear(acc_ptr, d, BD: tl.constexpr):
    """acc [d] = 0."""
    k = tl.arange(0, BD)
    for column in range(0, d, BD):
        tl.store(acc_ptr + column + k, tl.zeros((BD,), tl.float64), mask=k < d - column)


@triton.jit
def largest(state_ptr, b, B, parts, SB: tl.constexpr, STATE: tl.constexpr):
    """The largest logit of query b in state [parts, STATE, B], where it stands first; and what may be subtracted."""
    s = tl.arange(0, SB)
    top = tl.full((SB,), float("-inf"), tl.float64)
    for first in range(0, parts, SB):
        at = state_ptr + (first + s).to(tl.int64) * STATE * B + b
        top = tl.maximum(top, tl.load(at, mask=first + s < parts, other=float("-inf")))
    best = tl.max(top, 0)
    return best, tl.where(best == float("-inf"), 0.0, best)  # -inf - -inf would be NaN


def shares(n: int, batch: int, d: int) -> tuple[int, int]:
    """(parts, rows of each): of n rows, each part with sums [B, d] of its own."""
    most = max(1, min(_PARTS, _SUMS // (batch * d)))
    per_part = triton.cdiv(triton.cdiv(n, most), WORD) * WORD
    return triton.cdiv(n, per_part), per_part
