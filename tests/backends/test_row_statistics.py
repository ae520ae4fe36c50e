"""What looks at all rows found is kept beside a mapped file: taken where it fits, else made anew."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

import geodiff
from geodiff import _cpu
from geodiff.backends import mapped_file, row_statistics, sidecar_file
from geodiff.base.dtypes import number_of

N, D = 700, 90

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells what a map is of")


@pytest.fixture(autouse=True)
def worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecar_file, "WORTH", 1)


def write(path: Path, seed: int = 0) -> Path:
    rows = np.random.default_rng(seed).integers(0, 256, (N, D), np.uint8)
    np.save(path, rows)
    return path


def mapped(path: Path) -> torch.Tensor:
    return geodiff.data.load(path).data


def kept(path: Path) -> list[Path]:
    return sorted(path.parent.glob("*.geodiff-stats"))


def made(rows: torch.Tensor) -> bool:
    """Whether opening the rows makes a file of their statistics, or makes it anew."""
    file = mapped_file.find(rows)
    assert file is not None
    before = [(one, one.stat().st_ino) for one in kept(Path(file.path))]
    row_statistics.statistics_of(rows, file)
    return [(one, one.stat().st_ino) for one in kept(Path(file.path))] != before


def fields(found: Any, n: int = N, d: int = D) -> dict[str, Any]:
    arrays = {name: values.clone() for name, values in row_statistics._arrays(found, n, d).items()}
    return {**arrays, "numbers": found.numbers, "seen": found.seen}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(torch.equal(v, other[k]) if torch.is_tensor(v) else v == other[k] for k, v in one.items())


def test_what_was_kept_is_taken(tmp_path: Path) -> None:
    rows = mapped(write(tmp_path / "data.npy"))
    file = mapped_file.find(rows)
    assert file is not None
    assert made(rows)
    assert [path.name for path in kept(tmp_path / "data.npy")] == [f"data.npy.128-{N * D}.geodiff-stats"]
    assert not made(rows)
    again = row_statistics.statistics_of(rows, file)
    assert same(fields(again), fields(row_statistics.statistics_of(rows.clone(), None)))
    x = torch.randn(3, D)
    assert torch.equal(geodiff.OptimalDenoiser(rows)(x, 1.0), geodiff.OptimalDenoiser(rows.clone())(x, 1.0))


def test_numbers_are_those_of_the_formula(tmp_path: Path) -> None:
    rows = mapped(write(tmp_path / "data.npy"))
    found = fields(row_statistics.statistics_of(rows, mapped_file.find(rows)))
    centred = rows.double() - 128
    far = (centred - centred.mean(0)).square().sum(1)
    torch.testing.assert_close(found["half_norm"], centred.square().sum(1) / 2)
    torch.testing.assert_close(found["mean"], centred.mean(0))
    torch.testing.assert_close(found["away"].double(), far.sqrt(), rtol=1e-6, atol=0)
    expected = [centred.square().sum(1).max(), far.max(), (centred + 0.5).square().sum(1).max(), far.sum()]
    torch.testing.assert_close(torch.tensor(found["numbers"], dtype=torch.float64), torch.stack(expected))


@pytest.mark.parametrize("change", ["written", "replaced", "other rows", "damaged", "cut"])
def test_what_does_not_fit_is_made_anew(change: str, tmp_path: Path) -> None:
    path = write(tmp_path / "data.npy")
    assert made(mapped(path))
    (file,) = kept(path)
    limit = None
    if change == "written":
        with path.open("r+b") as data:
            data.seek(200)
            data.write(b"\x00")
    elif change == "replaced":
        write(path, seed=1)
    elif change == "other rows":
        limit = N - 1
    elif change == "damaged":
        file.write_bytes(b"nothing")
    else:
        file.write_bytes(file.read_bytes()[:-100])
    rows = mapped(path)[:limit]
    assert made(rows)
    assert not made(rows)
    assert same(
        fields(row_statistics.statistics_of(rows, mapped_file.find(rows)), len(rows)),
        fields(row_statistics.statistics_of(rows.clone(), None), len(rows)),
    )


def test_rows_written_to_in_memory_are_not_the_files(tmp_path: Path) -> None:
    path = write(tmp_path / "data.npy")
    assert made(mapped(path))
    rows = mapped(path)
    rows[3] = 0  # copy-on-write: the file stays as it is
    found = row_statistics.statistics_of(rows, mapped_file.find(rows))
    assert same(fields(found), fields(row_statistics.statistics_of(rows.clone(), None)))
    assert not made(mapped(path))  # and what is kept is of the file


def test_it_goes_on_where_a_killed_process_left_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = mapped(write(tmp_path / "data.npy"))
    file = mapped_file.find(rows)
    assert file is not None
    whole = fields(row_statistics.statistics_of(rows.clone(), None))
    monkeypatch.setattr(row_statistics, "EVERY", 0.0)
    for left_at in (1, N // 2, N, N + 5):
        begun = _cpu.Statistics(N, D)
        while begun.seen < left_at:
            begun.look(rows.data_ptr(), number_of(rows.dtype), file.path, 1, 1)
        beside = sidecar_file.SidecarFile(rows, file, row_statistics.SUFFIX, row_statistics.FORMAT)
        row_statistics._keep(begun, beside, N, D)
        with safe_open(kept(Path(file.path))[0], framework="pt") as archive:
            assert int(archive.get_tensor("seen")) == begun.seen
        assert same(fields(row_statistics.statistics_of(rows, file)), whole), left_at


def test_a_folder_that_cannot_be_written_to_is_gone_on_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(sidecar_file, "atomic_path", refuse)
    path = write(tmp_path / "data.npy")
    denoiser = geodiff.OptimalDenoiser(mapped(path))
    assert torch.isfinite(denoiser(torch.zeros(1, D), 1.0)).all()
    assert kept(path) == []


def test_small_files_and_memory_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecar_file, "WORTH", N * D + 1)
    path = write(tmp_path / "data.npy")
    geodiff.OptimalDenoiser(mapped(path))
    geodiff.OptimalDenoiser(mapped(path).clone())
    assert kept(path) == []


def test_a_copy_of_both_files_fits(tmp_path: Path) -> None:
    path = write(tmp_path / "data.npy")
    assert made(mapped(path))
    (tmp_path / "there").mkdir()
    for one in (path, *kept(path)):
        shutil.copy2(one, tmp_path / "there" / one.name)
    assert not made(mapped(tmp_path / "there" / "data.npy"))


def test_bad_rows_are_named(tmp_path: Path) -> None:
    rows = np.zeros((N, D), np.float32)
    rows[N - 2, 5] = np.nan
    np.save(tmp_path / "data.npy", rows)
    with pytest.raises(ValueError, match=rf"data\[{N - 2}\]"):
        geodiff.OptimalDenoiser(mapped(tmp_path / "data.npy"))
