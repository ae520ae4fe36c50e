"""Which rows a query sees, and with what log weights."""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def log_prior(bias_ptr, exclude_ptr, b, j, n, bias_stride, BIAS: tl.constexpr, EXCLUDE: tl.constexpr):
    """Of candidates j, of which j and n + j are one row; -inf of one that query b does not see."""
    row = tl.where(j < n, j, j - n)
    bias = tl.zeros_like(row).to(tl.float64)
    if BIAS > 0:
        at = bias_ptr + row if BIAS == 1 else bias_ptr + b * bias_stride + row
        bias = tl.load(at, mask=row < n, other=float("-inf"))
    if EXCLUDE:
        bias = tl.where(row == tl.load(exclude_ptr + b), float("-inf"), bias)
    return tl.where(row < n, bias, float("-inf"))


@triton.jit
def store_prior_mass(
    out_ptr, bias_ptr, exclude_ptr, b, first, last, n, bias_stride, BIAS: tl.constexpr, EXCLUDE: tl.constexpr,
    PRIORS: tl.constexpr,
):  # fmt: skip
    """The prior weight of candidates first .. last - 1, PRIORS at a time."""
    mass = tl.zeros((PRIORS,), tl.float64)
    for j in range(first, last, PRIORS):
        some = j + tl.arange(0, PRIORS)
        bias = log_prior(bias_ptr, exclude_ptr, b, some, n, bias_stride, BIAS, EXCLUDE)
        mass += tl.where(some < last, tl.exp(bias), 0.0)
    tl.store(out_ptr, tl.sum(mass, 0))


@dataclass(frozen=True)
class Seen:
    """Of some of the rows asked for, rows `start` and on.

    bias     float64 [n], or [B, n] for a query each, columns side by side: log weights; None: all alike
    exclude  int64 [B]: the row that each query does not see, counted from the first row asked for; -1, or a row that is
             not among these: none
    start    where these rows begin, as `exclude` counts
    """

    bias: Tensor | None = None
    exclude: Tensor | None = None
    start: int = 0

    @classmethod
    def on(cls, device: torch.device, bias: Tensor | None, exclude: Tensor | None) -> "Seen":
        """The same on a device, of the dtypes and strides above."""
        if bias is not None:
            bias = bias.to(device, torch.float64)
            bias = bias if bias.stride(-1) == 1 else bias.contiguous()
        return cls(bias, None if exclude is None else exclude.to(device, torch.int64).contiguous())

    def part(self, rows: slice) -> "Seen":
        """Of rows [rows.start, rows.stop) of these."""
        return Seen(None if self.bias is None else self.bias[..., rows], self.exclude, self.start + rows.start)

    def queries(self, which: slice) -> "Seen":
        """The same for some of the queries."""
        bias = self.bias if self.bias is None or self.bias.ndim == 1 else self.bias[which]
        return Seen(bias, None if self.exclude is None else self.exclude[which], self.start)

    @property
    def kind(self) -> int:
        """Of the bias, as kernels have it in BIAS: 0 none, 1 one for all queries, 2 one for each."""
        return 0 if self.bias is None else self.bias.ndim

    @property
    def stride(self) -> int:
        """Numbers from the biases of one query to those of the next: 0 where all have the same, or none."""
        return self.bias.stride(0) if self.bias is not None and self.bias.ndim == 2 else 0

    def bias_or(self, other: Tensor) -> Tensor:
        """What kernels take for the bias: any tensor of float64, which is not read, where there is none."""
        return other if self.bias is None else self.bias

    def exclude_or(self, other: Tensor) -> Tensor:
        """The same for `exclude`."""
        return other if self.exclude is None else self.exclude
