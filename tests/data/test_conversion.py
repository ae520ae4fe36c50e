"""`convert`: any source as one .npy, bit for bit, in pieces, going on where it was left off."""

import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from geodiff import DataError
from geodiff.data import convert, items, load, stream
from tests.data.test_data_edm import LABELS, NAMES, PIXELS, pictures, png, write

EXPECTED = torch.from_numpy(PIXELS.transpose(0, 3, 1, 2).copy())


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pictures a piece; nothing is read twice first."""
    monkeypatch.setattr(items, "_TWICE", 0)
    monkeypatch.setattr(stream, "PIECE", 2 * EXPECTED[0].numel())


def zipped(folder: Path) -> Path:
    return write(folder / "set.zip", pictures(), [list(pair) for pair in zip(NAMES, LABELS, strict=True)])


def test_a_zip_becomes_a_mapped_file_with_labels_beside(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    found = convert(zipped(tmp_path), tmp_path / "set.npy", progress=lambda *count: seen.append(count))
    assert seen == [(0, 5), (2, 5), (4, 5), (5, 5)]
    assert torch.equal(found.data, EXPECTED)
    assert found.labels is not None
    assert found.labels.tolist() == LABELS
    assert np.array_equal(np.load(tmp_path / "set.npy", mmap_mode="r"), EXPECTED.numpy())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set.npy", "set.zip", "set_labels.npy"]
    part = convert(tmp_path / "set.zip", tmp_path / "three.npy", limit=3)
    assert torch.equal(part.data, EXPECTED[:3])


class Interrupted(Dataset[Any]):
    """Notes what is read, and stops once."""

    def __init__(self, at: int) -> None:
        self.at, self.read = at, []

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        if index == self.at:
            raise KeyboardInterrupt
        self.read.append(index)
        return EXPECTED[index], LABELS[index]


def test_it_goes_on_where_it_was_left_off(tmp_path: Path) -> None:
    target = tmp_path / "set.npy"
    source = Interrupted(at=3)
    with pytest.raises(KeyboardInterrupt):
        convert(source, target)
    assert not target.exists()
    with (tmp_path / "set.npy.part").open("ab") as file:
        file.write(b"half a row")
    source.at, source.read = -1, []
    found = convert(source, target)
    assert source.read == [2, 3, 4]
    assert torch.equal(found.data, EXPECTED)
    assert found.labels is not None
    assert found.labels.tolist() == LABELS
    assert not list(tmp_path.glob("*.part*"))


def interrupted(source: Any, target: Path, after: int = 2) -> None:
    def stop(done: int, total: int | None) -> None:
        if done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, target, progress=stop)


def test_what_changed_meanwhile_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same names, same sizes, other pixels: half of each would be neither."""
    monkeypatch.setattr(items, "_TWICE", 16)
    others = EXPECTED ^ 1
    for name, data in (("a", EXPECTED), ("b", others)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "set.npy", data.numpy())
    (tmp_path / "c").mkdir()
    os.utime(zipped(tmp_path), ns=(1, 1))
    for number, (before, after) in enumerate(
        [
            (EXPECTED, others),
            (TensorDataset(EXPECTED), TensorDataset(others)),
            (tmp_path / "a" / "set.npy", tmp_path / "b" / "set.npy"),
            (tmp_path / "set.zip", zipped(tmp_path / "c")),
        ]
    ):
        interrupted(before, tmp_path / f"{number}.npy")
        with pytest.raises(ValueError, match="was begun from another source, split or mode; delete it to start anew"):
            convert(after, tmp_path / f"{number}.npy")


def test_a_limit_below_what_was_written(tmp_path: Path) -> None:
    interrupted(zipped(tmp_path), tmp_path / "set.npy", after=4)
    found = convert(tmp_path / "set.zip", tmp_path / "set.npy", limit=3)
    assert torch.equal(found.data, EXPECTED[:3])
    assert found.labels is not None
    assert found.labels.tolist() == LABELS[:3]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="a process is forked and killed")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_at_any_time_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Killed again and again, as by kill -9, until one run comes to the end."""
    names = [f"00000/img{index:08d}.png" for index in range(400)]
    points = np.random.default_rng(1).integers(0, 256, (400, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(400) % 7
    listed = [[name, int(label)] for name, label in zip(names, labels, strict=True)]
    path, target = (
        write(tmp_path / "set.zip", dict(zip(names, map(png, points), strict=True)), listed),
        tmp_path / "o.npy",
    )
    times = np.random.default_rng(2).uniform(0.01, 0.15, 100)
    kills = 0
    for seconds in times:
        process = multiprocessing.get_context("fork").Process(target=convert, args=(path, target))
        process.start()
        process.join(seconds)
        process.kill()
        process.join()
        kills += process.exitcode != 0
        if process.exitcode == 0:
            break
    # On a slow machine none may have come to the end, or one to the file but not to its own end, and another after it.
    found = load(target) if process.exitcode == 0 else convert(path, target)
    assert kills > 0
    assert np.array_equal(found.data.numpy(), points.transpose(0, 3, 1, 2))
    assert found.labels is not None
    assert np.array_equal(found.labels.numpy(), labels)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["o.npy", "o_labels.npy", "set.zip"]


def test_of_an_iterable_whose_length_nobody_knows(tmp_path: Path) -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(EXPECTED)

    found = convert(Stream(), tmp_path / "set.npy")
    assert torch.equal(found.data, EXPECTED)
    assert found.labels is None


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
def test_tensors_and_files(tmp_path: Path, dtype: torch.dtype) -> None:
    data = EXPECTED.to(dtype)
    if dtype != torch.uint8:
        data -= 128  # in 0..255 there would be a warning
    assert torch.equal(convert(data, tmp_path / "set.npy").data, data)
    assert torch.equal(convert(tmp_path / "set.npy", tmp_path / "again.npy").data, data)


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    convert(zipped(tmp_path), tmp_path / "set.npy")
    with pytest.raises(KeyboardInterrupt):
        convert(Interrupted(at=1), tmp_path / "set.npy")
    assert torch.equal(load(tmp_path / "set.npy").data, EXPECTED)
    for path in tmp_path.glob("*.part*"):
        path.unlink()
    assert convert(2 * EXPECTED, tmp_path / "set.npy").labels is None


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"out: expected a name in .npy, found 'set.npz'"):
        convert(EXPECTED, tmp_path / "set.npz")
    with pytest.raises(FileNotFoundError, match="out: expected a file in an existing folder"):
        convert(EXPECTED, tmp_path / "none" / "set.npy")
    with pytest.raises(ValueError, match=r"source: found bfloat16 points, which .npy does not have"):
        convert(EXPECTED.bfloat16(), tmp_path / "set.npy")
    with pytest.raises(KeyboardInterrupt):
        convert(Interrupted(at=3), tmp_path / "set.npy")
    with pytest.raises(ValueError, match=r"out: .*set.npy.part was begun from another source, split or mode; delete"):
        convert(zipped(tmp_path), tmp_path / "set.npy")
    (tmp_path / "set.npy.part.json").write_text(json.dumps({"shape": 3}))
    with pytest.raises(DataError, match=r"set.npy.part.json: damaged .*; delete it to start anew"):
        convert(zipped(tmp_path), tmp_path / "set.npy")
