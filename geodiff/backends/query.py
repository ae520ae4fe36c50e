"""What is asked of an engine: queries, their noise levels, and the rows that they see."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False, slots=True)
class Query:
    """Queries x against a range of rows: w_i = softmax_i(log pi_i - |x - x_i|^2 / 2 sigma^2), i in `rows`.

    x          [B, d] in model space, flat in storage order
    sigma      [B] float64
    rows       the rows that are seen, as a range
    log_prior  log pi, float64 [N] or [B, N], for all rows and normalised over `rows`; None: one over their number
    tol        relative error allowed in the mean: contract 1
    """

    x: Tensor
    sigma: Tensor
    rows: range
    log_prior: Tensor | None = None
    tol: float = 1e-5

    def __len__(self) -> int:
        """B, the number of queries."""
        return self.x.shape[0]

    @property
    def prior_of_rows(self) -> Tensor | None:
        """log pi of the rows that are seen, [n] or [B, n]."""
        return None if self.log_prior is None else self.log_prior[..., self.rows.start : self.rows.stop]

    def seen(self, stored: Tensor) -> Tensor:
        """The rows that are seen, of all rows [N, d] as stored: a view."""
        return stored[self.rows.start : self.rows.stop]


@dataclass(frozen=True, eq=False, slots=True)
class Direction:
    """What a covariance is taken with: c_i = <x_i - r, v> + slope |x - x_i|^2, for every query.

    mean [B, d] is r, v [B, d], slope [B], all float64
    """

    mean: Tensor
    v: Tensor
    slope: Tensor
