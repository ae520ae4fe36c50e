"""Leave-one-out against a data set without the point, from Triton's engine."""

import pytest
import torch

from tests.leave_one_out import Case, check


@pytest.mark.parametrize(
    ("dtype", "sigma", "conditioned", "which"),
    # A point and a mirror image; a point and none. The interpreter takes a second for each.
    [(torch.uint8, 0.4, True, (0, 3)), (torch.float32, 6.0, False, (1, 2))],
)
def test_exclude_is_a_data_set_without_the_point(
    dtype: torch.dtype, sigma: float, conditioned: bool, which: tuple[int, int]
) -> None:
    case = Case(1, 18, dtype, sigma, labelled=conditioned, weighted=conditioned, mirrored=conditioned)
    check(case, "triton", which)
