"""What every pass is asked, and what it answers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from geodiff.kernels.prepared import Prepared


@dataclass(frozen=True)
class Request:
    """Queries in centred units against rows [first, first + n) of the data."""

    data: Prepared
    first: int
    n: int
    x: Tensor  # [B, d] float64
    sigma: Tensor  # [B] float64
    bias: Tensor | None  # float64 [n], or [B, n] for a query each, columns side by side: log weights, or none
    near: Tensor  # [B] int64: a row of this range, the nearest known, and
    gap: Tensor  # [B] float64: |x - v_near|^2: logits are taken relative to near's
    cut: float
    tol: float
    topk: int

    @property
    def inv(self) -> Tensor:
        """1 / sigma^2, [B]."""
        return 1 / self.sigma.square()

    @property
    def rows(self) -> Tensor:
        """[n, d] as stored."""
        return self.data.rows[self.first : self.first + self.n]

    def reference(self) -> Tensor:
        """[B]: <x, v> - |v|^2 / 2 of the row near, and its bias times sigma^2, so that its logit is 0."""
        common = (self.x.square().sum(1) - self.gap) / 2
        return common if self.bias is None else common + self.near_bias() * self.sigma.square()

    def near_bias(self) -> Tensor:
        """[B]: the bias of near, 0 where that is -inf."""
        bias = self.bias_of(torch.arange(len(self.x), device=self.x.device), self.near)
        return torch.where(torch.isfinite(bias), bias, 0)

    def bias_of(self, queries: Tensor, rows: Tensor) -> Tensor:
        """The biases [P] of listed queries [P] and rows [P]; 0 where there are none."""
        if self.bias is None:
            return torch.zeros(rows.shape, dtype=torch.float64, device=rows.device)
        return self.bias[rows] if self.bias.ndim == 1 else self.bias[queries, rows]

    def offset(self) -> Tensor:
        """[B]: what turns a relative logit into -|x - v|^2 / 2 sigma^2 + bias."""
        return self.near_bias() - self.gap * self.inv / 2

    def part(self, which: Tensor) -> "Request":
        """The same for queries `which`."""
        bias = self.bias if self.bias is None or self.bias.ndim == 1 else self.bias[which]
        return Request(
            self.data, self.first, self.n, self.x[which], self.sigma[which], bias, self.near[which],
            self.gap[which], self.cut, self.tol, self.topk,
        )  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """Fields [B, ...] float64; mean in model space, log_sum = log sum_i exp(-|x - v_i|^2 / 2 sigma^2 + bias_i).

    bias = E_w bias_i, 0 without any.
    """

    mean: Tensor
    log_sum: Tensor
    entropy: Tensor
    ess: Tensor
    bias: Tensor
    indices: Tensor
    weights: Tensor
    path: Tensor  # int8

    @staticmethod
    def empty(batch: int, d: int, topk: int, device: torch.device) -> "Answer":
        def new(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.empty(*shape, dtype=dtype, device=device)

        return Answer(
            new(batch, d), new(batch), new(batch), new(batch), new(batch), new(batch, topk, dtype=torch.int64),
            new(batch, topk), new(batch, dtype=torch.int8),
        )  # fmt: skip

    def part(self, which: Tensor) -> "Answer":
        """The same for queries `which`."""
        return Answer(*(getattr(self, name)[which] for name in self.__dataclass_fields__))

    def put(self, which: Tensor, part: "Answer") -> None:
        """Takes in the answers to queries `which`."""
        for name in self.__dataclass_fields__:
            getattr(self, name)[which] = getattr(part, name)
