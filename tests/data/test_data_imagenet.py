"""The downsampled ImageNet: planes, not rows of pixels; labels from 1; batches by number; nothing run from a pickle."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from geodiff import DataError
from geodiff.data import load

SIDE = 4


def batch(first: int, count: int = 3) -> dict[str, object]:
    """Image i has i in its red, 100 + i in its green and 200 + i in its blue plane, and one pixel that is not."""
    planes = np.arange(first, first + count)[:, None, None] + np.array([0, 100, 200])[:, None]
    data = np.broadcast_to(planes, (count, 3, SIDE * SIDE)).astype(np.uint8).copy()
    data[:, 1, 2] = 255  # green, row 0, column 2
    labels = [(first + i) % 1000 + 1 for i in range(count)]
    return {"data": data.reshape(count, -1), "labels": labels, "mean": data.reshape(count, -1).mean(0)}


def write(path: Path, content: dict[str, object]) -> None:
    if path.suffix == ".npz":
        np.savez(path, **{name: np.asarray(value) for name, value in content.items()})
    else:
        path.write_bytes(pickle.dumps(content, 4))


@pytest.mark.parametrize("suffix", [".npz", ""])
def test_batches_are_read_in_numerical_order(tmp_path: Path, suffix: str) -> None:
    for number in range(1, 12):
        write(tmp_path / f"train_data_batch_{number}{suffix}", batch(10 * number))
    write(tmp_path / f"val_data{suffix}", batch(0, 2))
    found = load(tmp_path)
    assert found.data.shape == (33, 3, SIDE, SIDE)
    assert found.data[:, 0, 0, 0].tolist() == [10 * number + i for number in range(1, 12) for i in range(3)]
    assert found.data[0, :, 1, 1].tolist() == [10, 110, 210]
    assert (found.data[:, 1, 0, 2] == 255).all()
    assert found.labels is not None
    assert found.labels.tolist() == found.data[:, 0, 0, 0].tolist()  # 0..999, as they were made
    assert "not of sorted WordNet ids" in found.layout
    assert load(tmp_path, split="test").data[:, 0, 0, 0].tolist() == [0, 1]
    assert load(tmp_path / f"train_data_batch_2{suffix}", limit=2).data[:, 0, 0, 0].tolist() == [20, 21]


def test_with_the_list_of_classes_labels_are_those_of_sorted_ids(tmp_path: Path) -> None:
    write(tmp_path / "train_data_batch_1.npz", batch(0))
    lines = [f"n{1000 - number:08d} {number} name_{number}" for number in range(1, 1001)]
    (tmp_path / "map_clsloc.txt").write_text("\n".join(lines))
    found = load(tmp_path)
    assert found.labels is not None
    assert found.labels.tolist() == [999, 998, 997]
    assert found.classes[999] == "n00000999"
    assert "WordNet" not in found.layout
    (tmp_path / "map_clsloc.txt").write_text("\n".join(lines[:5]))
    with pytest.raises(
        DataError, match=r"map_clsloc.txt: expected lines 'WordNet-id number name' for 1..1000, found 5"
    ):
        load(tmp_path)


@pytest.mark.parametrize("suffix", [".npz", ""])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 1, 2]}, r"labels: expected 1..1000, found 0"),
        ({"labels": [1, 2]}, r"labels: expected one per point"),
        ({"labels": None}, r"keys: found .*; expected data and labels"),
        ({"data": np.zeros((3, 47), np.uint8)}, r"data: expected uint8 \[n, 3 S S\]"),
        ({"data": np.zeros((3, 48), np.float32)}, r"found float32 \[3, 48\]"),
    ],
)
def test_damages(tmp_path: Path, suffix: str, change: dict[str, object], message: str) -> None:
    content = {name: value for name, value in {**batch(0), **change}.items() if value is not None}
    write(tmp_path / f"train_data_batch_1{suffix}", content)
    with pytest.raises(DataError, match=f"train_data_batch_1.*{message}"):
        load(tmp_path)


def test_a_batch_that_is_missing(tmp_path: Path) -> None:
    for number in (1, 3):
        write(tmp_path / f"train_data_batch_{number}.npz", batch(0))
    with pytest.raises(FileNotFoundError, match=r"batches missing: found train_data_batch numbers \[1, 3\]"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match="split='test'"):
        load(tmp_path, split="test")


def test_batches_of_two_sizes(tmp_path: Path) -> None:
    write(tmp_path / "train_data_batch_1.npz", batch(0))
    write(tmp_path / "train_data_batch_2.npz", {**batch(0), "data": np.zeros((3, 12), np.uint8)})
    with pytest.raises(DataError, match=r"train_data_batch_2.npz: size: found 2x2, expected 4x4 as in train"):
        load(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are POSIX")
@pytest.mark.parametrize("name", ["train_data_batch_1", "train_data_batch_1.npz", "data_batch_1", "a.parquet", "a.tar"])
def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name}: expected a file, found a device, pipe or socket"):
        load(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=rf"{name}: the file is empty \(0 bytes\)"):
        load(tmp_path)


def test_an_archive_that_unpacks_to_more_than_a_batch_can_be(tmp_path: Path) -> None:
    """Refused by what it says of itself."""
    path = tmp_path / "train_data_batch_1.npz"
    write(path, batch(0))
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02") + 24  # the size in the directory, of 4 bytes: here one that 64 bits would follow
    content[at : at + 4] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("geodiff.data.imagenet.MOST_OF_BATCH", 2**31)
        with pytest.raises(DataError, match=r"train_data_batch_1.npz: .*: found 4294967294 bytes or more, allowed"):
            load(path)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo run",)


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    write(tmp_path / "train_data_batch_1", {**batch(0), "labels": Evil()})
    with pytest.raises(DataError, match="system, which a batch of the downsampled ImageNet does not need; not loaded"):
        load(tmp_path)


def test_truncated(tmp_path: Path) -> None:
    for suffix in (".npz", ""):
        path = tmp_path / f"train_data_batch_1{suffix}"
        write(path, batch(0))
        path.write_bytes(path.read_bytes()[:-150])
        with pytest.raises(DataError, match=r"train_data_batch_1.*damaged, truncated"):
            load(path)


def test_other_npz_files_are_read_as_before(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", data=np.zeros((2, 12), np.uint8), labels=np.array([0, 1]))
    assert torch.equal(load(tmp_path / "mine.npz").data, torch.zeros(2, 12, dtype=torch.uint8))
