"""Folders of data-00000-of-00012.npy, as one data set."""

from pathlib import Path

import numpy as np
import pytest
import torch

import geodiff
from geodiff.base.errors import DataError

POINTS = np.random.default_rng(0).integers(0, 256, (23, 3, 4, 4), dtype=np.uint8)
LABELS = np.arange(23) % 4


def write(folder: Path, count: int, *, labels: bool) -> None:
    for k, (points, classes) in enumerate(zip(*(np.array_split(v, count) for v in (POINTS, LABELS)), strict=True)):
        np.save(folder / f"data-{k:05}-of-{count:05}.npy", points)
        if labels:
            np.save(folder / f"labels-{k:05}-of-{count:05}.npy", classes)


@pytest.mark.parametrize("labels", [False, True])
def test_shards_are_read_in_order(labels: bool, tmp_path: Path) -> None:
    write(tmp_path, 12, labels=labels)
    found = geodiff.data.load(tmp_path)
    assert np.array_equal(found.data.numpy(), POINTS)
    assert (found.labels is not None) == labels
    if found.labels is not None:
        assert np.array_equal(found.labels.numpy(), LABELS)
    assert torch.equal(geodiff.data.load(tmp_path, limit=5).data, found.data[:5])


def test_convert_makes_one_mapped_file_of_them(tmp_path: Path) -> None:
    write(tmp_path, 5, labels=True)
    made = geodiff.data.convert(tmp_path, tmp_path / "one.npy")
    assert np.array_equal(np.load(tmp_path / "one.npy"), POINTS)
    assert made.labels is not None
    assert np.array_equal(made.labels.numpy(), LABELS)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    write(tmp_path, 3, labels=True)
    (tmp_path / "labels-00001-of-00003.npy").unlink()
    with pytest.raises(DataError, match=r"labels-00001-of-00003\.npy: missing"):
        geodiff.data.load(tmp_path)
    np.save(tmp_path / "labels-00001-of-00003.npy", LABELS[:8])
    np.save(tmp_path / "data-00002-of-00003.npy", POINTS[:3, :2])
    with pytest.raises(DataError, match=r"data-00002-of-00003\.npy: points: found torch\.uint8 \[2, 4, 4\]"):
        geodiff.data.load(tmp_path)
    (tmp_path / "data-00002-of-00003.npy").unlink()
    with pytest.raises(DataError, match=r"shards: 1 of 3 missing, such as data-00002-of-00003\.npy"):
        geodiff.data.load(tmp_path)
    write(tmp_path, 2, labels=False)
    with pytest.raises(DataError, match="shards: found sets of 2 and 3 files"):
        geodiff.data.load(tmp_path)
