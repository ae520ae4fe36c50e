"""bench/grid.py: rows of every size, the rule of the worst cell, and a run of two sizes."""

from types import ModuleType

import pytest
import torch

from tests.bench.scripts import loaded

IMAGES = torch.randint(0, 256, (30, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def grid() -> ModuleType:
    return loaded("grid")


@pytest.mark.parametrize("d", [64, 784, 3072, 12288])
@pytest.mark.parametrize("count", [7, 30, 100])
def test_rows(grid: ModuleType, count: int, d: int) -> None:
    rows = grid.rows_of(IMAGES, count, d)
    assert rows.dtype == torch.uint8
    assert (len(rows), rows[0].numel()) == (count, d)
    assert len(rows.flatten(1).unique(dim=0)) == count


def test_rows_of_their_own_size_are_the_images(grid: ModuleType) -> None:
    assert torch.equal(grid.rows_of(IMAGES, 31, 3072), torch.cat([IMAGES, IMAGES[:1].flip(-1)]))


def test_small_problems_may_be_a_little_behind(grid: ModuleType) -> None:
    assert grid.margin(2.0, 1.0) == 0.5
    assert grid.margin(0.16, 0.01) == 1.0
    assert grid.margin(0.2, 0.04) < 1 < grid.margin(0.1, 0.04)


def test_what_does_not_fit_is_left_out(grid: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "fits", lambda count, d: d < 784)
    monkeypatch.setattr(grid, "BATCHES", (1, 3))
    cells, left_out = grid.measure(IMAGES, 1, [(50, 64), (50, 784)])
    assert [(cell.rows, cell.d, cell.batch) for cell in cells] == [(50, 64, 1), (50, 64, 3)] * 2
    assert all(cell.error <= 1e-5 and cell.ratio == cell.torch_ms / cell.ours_ms for cell in cells)
    assert left_out == ["N = 50, d = 784: a float32 copy is not for this machine's memory"]
    assert "| 50 | " in grid.markdown(cells)
