"""Leave-one-out against a data set without the point, from Triton's engine."""

import pytest
import torch

from tests.leave_one_out import Case, check


@pytest.mark.parametrize(("dtype", "sigma", "conditioned"), [(torch.uint8, 0.4, True), (torch.float32, 6.0, False)])
def test_exclude_is_a_data_set_without_the_point(dtype: torch.dtype, sigma: float, conditioned: bool) -> None:
    check(Case(1, 18, dtype, sigma, labelled=conditioned, weighted=conditioned, mirrored=conditioned), "triton")
