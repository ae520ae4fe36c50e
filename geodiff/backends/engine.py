"""What a backend must offer: one class that holds prepared rows and answers batches of queries."""

from abc import ABC, abstractmethod

from torch import Tensor

from geodiff.posterior import Posterior


class Engine(ABC):
    """A data set made ready for one backend. Rows are [N, d] as stored; queries [B, d] in model space."""

    #: [d] float64: the mean of the data in model space, the limit of r for sigma to infinity
    mean: Tensor
    #: whether `posterior` never waits for the device, so that it can be recorded into a CUDA graph
    capturable = False

    @abstractmethod
    def posterior(
        self, x: Tensor, sigma: Tensor, *, topk: int, tol: float, log_prior: Tensor | None, rows: range
    ) -> Posterior:
        """Queries x [B, d] at levels sigma [B] float64 against the given range of rows, to contract 1 at `tol`.

        log_prior [N] float64: normalised over `rows`; None means 1/len(rows). `indices` count from row 0 of the data.
        """

    @abstractmethod
    def inner_products(self, x: Tensor) -> Tensor:
        """<x_q, x_i>, [B, N] float64, for x [B, d]."""

    @abstractmethod
    def weighted_mean(self, logits: Tensor, tol: float) -> Tensor:
        """sum_i softmax_i(l_q) x_i, [B, d] float64, for logits [B, N], to contract 1 at `tol`."""

    @abstractmethod
    def squared_distances(self, x: Tensor, candidates: Tensor) -> Tensor:
        """|x_q - x_c|^2, [B, C] float64, for x [B, d] and rows c = candidates [B, C] int64; infinity where c < 0."""
