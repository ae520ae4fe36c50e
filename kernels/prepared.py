"""Rows as the kernels see them, and what one look at them tells."""

import torch
from torch import Tensor

from geodiff.base.arguments import check_finite
from geodiff.base.dtypes import centred_units
from geodiff.reference.contract import least_scale

_ELEMENTS = 2**23  # values in float64 at a time

#: What `Prepared.facts` holds, by place.
RADIUS, NORM, LEAST, SPREAD, IN_RANGE = range(5)


class Prepared:
    """Stored rows [N, d] in *centred units*: v = u - 128 for uint8 (exact integers), else v is the value.

    Model space is (v + shift) / unit. `half` [N] float64 = |v_i|^2 / 2; `away` [N] float64 = |v_i - mean|; `mean` [d]
    float64 is the mean of v; radius = max away; norm = max |v_i|; model_norm = max |v_i + shift|.

    `facts` [5] float64 has what kernels want to know of all rows together: radius; norm; the least value that contract
    1 divides by; the mean of away^2; and 1 if float32 products of the data stay clear of overflow and of subnormal
    numbers, else 0. `dither` [d] float64 is what queries are rounded by: see `geodiff.kernels.queries`.
    """

    def __init__(self, rows: Tensor) -> None:
        """Raises ValueError if rows hold NaN or Inf."""
        n, d = rows.shape
        self.rows = rows
        self.shift, self.unit = centred_units(rows.dtype)
        at_a_time = max(1, _ELEMENTS // d)
        self.half = torch.empty(n, dtype=torch.float64, device=rows.device)
        self.away = torch.empty_like(self.half)
        self.mean = torch.zeros(d, dtype=torch.float64, device=rows.device)
        model = self.half.new_zeros(())
        for start in range(0, n, at_a_time):
            part = rows[start : start + at_a_time]
            check_finite(part, "data", first_row=start)
            values = centred(part)
            self.half[start : start + at_a_time] = values.square().sum(1) / 2
            self.mean += values.sum(0)
            model = torch.maximum(model, (values + self.shift).norm(dim=1).max())
        self.mean /= n
        for start in range(0, n, at_a_time):
            values = centred(rows[start : start + at_a_time])
            self.away[start : start + at_a_time] = (values - self.mean).norm(dim=1) * (1 + 1e-12)
        self.radius = float(self.away.max())
        self.norm = float((2 * self.half.max()).sqrt())
        self.model_norm = float(model)
        facts = [0.0] * 5
        facts[RADIUS], facts[NORM], facts[LEAST] = self.radius, self.norm, self.least_scale
        facts[SPREAD] = float(self.away.square().mean())
        facts[IN_RANGE] = float(2.0**-80 < self.norm < 2.0**110)
        self.facts = torch.tensor(facts, dtype=torch.float64).to(rows.device)
        pattern = torch.rand(d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        self.dither, self.nearest = pattern.to(rows.device), torch.full_like(self.mean, 0.5)

    @property
    def least_scale(self) -> float:
        """The smallest value that contract 1 divides by, 0.01 max |x_i|, in centred units."""
        return least_scale(self.model_norm)


def centred(rows: Tensor) -> Tensor:
    """Stored rows in centred units, float64."""
    return rows.double() - 128 if rows.dtype == torch.uint8 else rows.double()
