"""Sums over subsets: by differences and one by one, against the product with the matrix of members."""

import pytest
import torch
from torch import Tensor

from geodiff.local.subset_sums import NOWHERE, SubsetSums, by_differences, one_by_one


def blobs(size: int, reach: int) -> Tensor:
    """Members and outputs are places on a size x size grid, members those within reach; bool [size^2, size^2]."""
    places = torch.cartesian_prod(torch.arange(size), torch.arange(size)).float()
    return torch.cdist(places, places) <= reach


SUBSETS = {
    "one": torch.ones(1, 1, dtype=torch.bool),
    "none": torch.zeros(4, 4, dtype=torch.bool),
    "random": torch.rand(37, 37, generator=torch.Generator().manual_seed(0)) < 0.3,
    "blobs": blobs(9, 3),
    "alike": torch.ones(5, 5, dtype=torch.bool).index_fill(0, torch.tensor([2]), value=False),
    "apart": torch.eye(6, dtype=torch.bool),
}


def ways(subsets: Tensor) -> tuple[SubsetSums, SubsetSums]:
    return one_by_one(subsets), by_differences(subsets)


@pytest.mark.parametrize("name", SUBSETS)
def test_every_sum_is_that_of_its_members(name: str) -> None:
    subsets = SUBSETS[name]
    values = torch.randn(2, 3, len(subsets), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for sums in ways(subsets):
        torch.testing.assert_close(sums.of(values), values @ subsets.double(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", SUBSETS)
def test_what_is_said_of_the_sums_holds(name: str) -> None:
    subsets = SUBSETS[name]
    for sums in ways(subsets):
        output, minus, plus, _, keep = sums.steps.unbind(1)
        assert output.sort().values.tolist() == list(range(len(subsets)))
        assert int((minus + plus).sum()) == len(sums.terms)
        assert sums.largest == int(subsets.sum(0).max())
        assert int(subsets.sum(0).max()) <= sums.additions <= len(sums.terms)
        assert sums.places == len(set(keep.tolist()) - {NOWHERE})


def test_differences_are_fewer() -> None:
    direct, differences = ways(blobs(16, 5))
    assert len(differences.terms) < 0.3 * len(direct.terms)
    assert differences.places <= 8
