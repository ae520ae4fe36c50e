"""bench/grid.py: rows of every size, the rule of the worst cell, what fits, and a run that goes on."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
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


def test_peers_that_fit(grid: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    both = list(grid.PEERS)
    copy = 1000 * (4 * 12288 + 8 * 256)
    found = []
    for free in (3 * copy, 2 * copy, copy // 2):
        sizes = {"SC_AVPHYS_PAGES": free, "SC_PAGE_SIZE": 1}
        monkeypatch.setattr(grid.os, "sysconf", sizes.__getitem__)
        found.append(grid.peers_that_fit(1000, 12288))
    assert found == [both, both[:1], []]


def test_what_was_measured_is_kept(
    grid: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "images.npy", IMAGES.numpy())
    out = tmp_path / "grid.json"
    monkeypatch.setattr(grid, "BATCHES", (1, 3))
    monkeypatch.setattr(grid, "peers_that_fit", lambda count, d: [] if d == 12288 else list(grid.PEERS))

    def run(*lengths: int) -> str:
        asked = [part for d in lengths for part in ("--length", str(d))]
        files = ["--data", str(tmp_path / "images.npy"), "--out", str(out)]
        monkeypatch.setattr("sys.argv", ["grid.py", *files, "--rounds", "1", "--rows", "50", *asked])
        grid.main()
        return capsys.readouterr().out

    with pytest.raises(SystemExit, match="N = 50, d = 12288: a float32 copy is not for this machine's memory"):
        run(12288)
    assert "worst: " in run(64)
    before = json.loads(out.read_text())["cells"]
    assert [(cell["rows"], cell["d"], cell["batch"]) for cell in before] == [(50, 64, 1), (50, 64, 3)] * 3
    assert all(cell["error"] <= 1e-5 and cell["ratio"] == cell["torch_ms"] / cell["ours_ms"] for cell in before)
    assert {cell["peers"] for cell in before} == {2}
    said = run(64, 784, 12288)
    after = json.loads(out.read_text())["cells"]
    assert after[:6] == before
    assert [cell["d"] for cell in after[6:]] == [784] * 6
    assert "N = 50, d = 12288: a float32 copy is not for this machine's memory" in said
    out.write_text(out.read_text().replace('"rounds": 1', '"rounds": 2'))
    with pytest.raises(SystemExit, match="rounds was 2, is 1; name another --out"):
        run(64)
