"""Kernels run on two threads here, whatever the processes of the suite have: sums of threads are joined then."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _two_threads(_same_start: None) -> None:
    torch.set_num_threads(2)
