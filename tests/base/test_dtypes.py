"""Centred units: what kernels read, and how it becomes model space."""

import pytest
import torch

from geodiff import reference
from geodiff.base.dtypes import STORED, centred_units
from geodiff.kernels.prepared import centred


@pytest.mark.parametrize("dtype", STORED)
def test_centred_units_become_model_space(dtype: torch.dtype) -> None:
    rows = torch.arange(256.0)[:, None].to(dtype)
    shift, unit = centred_units(dtype)
    found = (centred(rows) + shift) / unit
    torch.testing.assert_close(found, reference.model_space(rows, torch.float64), rtol=1e-15, atol=1e-15)
