"""Leave-one-out against a data set without the point, on every backend and instruction set: `tests.leave_one_out`."""

import contextlib

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import geodiff
from geodiff.backends import cpu
from tests.leave_one_out import DTYPES, SIGMAS, Case, check

#: reference, and the CPU core on each instruction set of this machine. Triton: tests/kernels/interpreted
RUNS = ["reference", *(cpu.isas() if geodiff.backends.is_available("cpu") else [])]
CASES = st.builds(
    Case,
    seed=st.integers(0, 2**20),
    n=st.integers(15, 70),
    dtype=st.sampled_from(DTYPES),
    sigma=st.sampled_from(SIGMAS),
    labelled=st.booleans(),
    weighted=st.booleans(),
    mirrored=st.booleans(),
)


def on(run: str, case: Case) -> None:
    with contextlib.nullcontext() if run == "reference" else cpu.use_isa(run):
        check(case, "reference" if run == "reference" else "cpu")


@pytest.mark.parametrize("run", RUNS)
@settings(max_examples=5, deadline=None)
@given(case=CASES)
# A point with most of the weight of its class, beside points of other classes, which are not among those that are left.
@example(case=Case(0, 33, torch.uint8, 0.05, labelled=True, weighted=True, mirrored=False))
def test_exclude_is_a_data_set_without_the_point(run: str, case: Case) -> None:
    on(run, case)


@pytest.mark.heavy
@pytest.mark.parametrize("run", RUNS)
@settings(max_examples=40, deadline=None)
@given(case=CASES)
def test_many_cases(run: str, case: Case) -> None:
    on(run, case)
