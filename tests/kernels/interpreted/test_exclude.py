"""Leave-one-out against a data set without the point, from Triton's engine."""

import pytest
import torch

from tests.leave_one_out import Case, check


@pytest.mark.parametrize("sigma", [0.4, 6.0])
@pytest.mark.parametrize(
    ("dtype", "labelled", "weighted", "mirrored"),
    [(torch.uint8, True, True, True), (torch.float32, False, False, False)],
)
def test_exclude_is_a_data_set_without_the_point(
    dtype: torch.dtype, sigma: float, labelled: bool, weighted: bool, mirrored: bool
) -> None:
    check(Case(1, 18, dtype, sigma, labelled, weighted, mirrored), "triton")
