"""MNIST-style IDX files, plain and gzipped."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from geodiff.base.errors import DataError
from geodiff.data import load

RNG = np.random.default_rng(1)
IMAGES = RNG.integers(0, 256, (9, 5, 7), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 9, dtype=np.uint8)


def encode(array: np.ndarray, code: int = 0x08) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
    return path


@pytest.mark.parametrize("labels_name", ["train-labels-idx1-ubyte", "train-labels-idx1-ubyte.gz"])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"])
def test_round_trip_with_the_labels_beside(tmp_path, name, labels_name):
    path = write(tmp_path, name, encode(IMAGES))
    write(tmp_path, labels_name, encode(LABELS))
    dataset = load(path)
    assert dataset.data.dtype == torch.uint8
    assert np.array_equal(dataset.data.numpy(), IMAGES[:, None])
    assert dataset.labels is not None
    assert dataset.labels.dtype == torch.int64
    assert np.array_equal(dataset.labels.numpy(), LABELS)
    assert (dataset.name, dataset.layout) == (name, "HW viewed as CHW")


def test_without_labels_and_other_names(tmp_path):
    for name in ("faces.idx3", "faces.idx3-ubyte.gz", "anything.gz", "bare"):
        dataset = load(write(tmp_path, name, encode(IMAGES)), limit=2)
        assert np.array_equal(dataset.data.numpy(), IMAGES[:2, None])
        assert dataset.labels is None


def test_dotted_names_find_their_labels(tmp_path):
    path = write(tmp_path, "train-images.idx3-ubyte", encode(IMAGES))
    write(tmp_path, "train-labels.idx1-ubyte", encode(LABELS))
    assert load(path).labels is not None


def test_layouts(tmp_path):
    path = write(tmp_path, "a.idx3", encode(IMAGES))
    assert load(path, layout="flat").data.shape == (9, 5, 7)
    assert load(path, layout="chw").data.shape == (9, 1, 5, 7)
    four = write(tmp_path, "b.idx4", encode(np.zeros((2, 5, 7, 3), np.uint8)))
    assert load(four).data.shape == (2, 3, 5, 7)
    assert load(write(tmp_path, "c.idx2", encode(np.zeros((2, 6), np.uint8)))).data.shape == (2, 6)


def test_plain_file_is_mapped_and_never_written(tmp_path, monkeypatch):
    opened = []
    real = np.memmap
    monkeypatch.setattr(np, "memmap", lambda *arguments: opened.append(real(*arguments)) or opened[-1])
    path = write(tmp_path, "a.idx3", encode(IMAGES))
    data = load(path, limit=2).data
    assert data.data_ptr() == opened[0].ctypes.data
    assert opened[0].flags.writeable  # copy-on-write; without it the next line would end the process
    data[0] += 1
    assert path.read_bytes() == encode(IMAGES)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_folder_of_two_splits(tmp_path, ending):
    write(tmp_path, f"train-images-idx3-ubyte{ending}", encode(IMAGES))
    write(tmp_path, f"train-labels-idx1-ubyte{ending}", encode(LABELS))
    write(tmp_path, f"t10k-images-idx3-ubyte{ending}", encode(IMAGES[:4]))
    write(tmp_path, f"t10k-labels-idx1-ubyte{ending}", encode(LABELS[:4]))
    train, test = load(tmp_path), load(tmp_path, split="test")
    assert (len(train), len(test)) == (9, 4)
    assert test.labels is not None
    assert np.array_equal(test.labels.numpy(), LABELS[:4])
    assert train.name == tmp_path.name


def test_folder_without_the_split(tmp_path):
    write(tmp_path, "train-images-idx3-ubyte", encode(IMAGES))
    with pytest.raises(FileNotFoundError, match=r"no file t10k-images-idx3-ubyte\(\.gz\) for split='test'"):
        load(tmp_path, split="test")


@pytest.mark.parametrize("keep", [1, 3, 4, 10, 15, 16, 100, -1])
def test_truncated_plain_file(tmp_path, keep):
    path = write(tmp_path, "a.idx3", encode(IMAGES)[:keep])
    with pytest.raises(DataError, match=r"a\.idx3: (truncated|damaged)"):
        load(path)


@pytest.mark.parametrize("keep", [1, 3, 4, 10, 15, 16, 100, -1])
def test_gzip_of_a_truncated_file(tmp_path, keep):
    path = write(tmp_path, "a.idx3.gz", encode(IMAGES)[:keep])
    with pytest.raises(DataError, match=r"a\.idx3\.gz: (truncated|damaged)"):
        load(path)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.5, 0.99])
def test_truncated_gzip(tmp_path, share):
    path = write(tmp_path, "a.idx3.gz", encode(IMAGES))
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.raises(DataError, match=r"a\.idx3\.gz: .*(empty|truncated|damaged)"):
        load(path)


def test_corrupt_gzip_is_found_by_its_checksum(tmp_path):
    path = write(tmp_path, "a.idx3.gz", encode(IMAGES))
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # the stored CRC-32
    path.write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        load(path)


@pytest.mark.parametrize("name", ["a.idx3", "a.idx3.gz"])
def test_surplus_bytes(tmp_path, name):
    path = write(tmp_path, name, encode(IMAGES) + b"\0")
    with pytest.raises(DataError, match="the header promises 315 elements, found more"):
        load(path)


@pytest.mark.parametrize(
    ("code", "dtype"), [(0x09, "int8"), (0x0B, "int16"), (0x0C, "int32"), (0x0D, "float32"), (0x0E, "float64")]
)
def test_other_element_types(tmp_path, code, dtype):
    path = write(tmp_path, "a.idx3", encode(IMAGES.astype(dtype), code))
    with pytest.raises(DataError, match=rf"a\.idx3: dtype: found {dtype}; allowed in IDX uint8"):
        load(path)


def test_label_file_given_as_data(tmp_path):
    with pytest.raises(DataError, match="found 1 axis, as in a label file; expected images"):
        load(write(tmp_path, "train-labels-idx1-ubyte", encode(LABELS)))


@pytest.mark.parametrize("name", ["a.idx3", "a.idx3.gz"])
@pytest.mark.parametrize("shape", [(0, 5, 7), (9, 0, 7)])
def test_empty(tmp_path, name, shape):
    with pytest.raises(DataError, match="expected at least one point"):
        load(write(tmp_path, name, encode(np.zeros(shape, np.uint8))))


@pytest.mark.parametrize(("labels", "words"), [(LABELS[:-1], "labels: expected one per point"), (IMAGES, "labels: ")])
def test_labels_that_do_not_fit(tmp_path, labels, words):
    path = write(tmp_path, "train-images-idx3-ubyte", encode(IMAGES))
    write(tmp_path, "train-labels-idx1-ubyte", encode(labels))
    with pytest.raises(DataError, match=rf"train-labels-idx1-ubyte: {words}"):
        load(path)


def test_damaged_labels_are_named(tmp_path):
    path = write(tmp_path, "train-images-idx3-ubyte", encode(IMAGES))
    write(tmp_path, "train-labels-idx1-ubyte", encode(LABELS)[:-1])
    with pytest.raises(DataError, match="train-labels-idx1-ubyte: truncated"):
        load(path)


@pytest.mark.parametrize("axes", [0, 1, 255])
def test_damaged_header_with_huge_sizes(tmp_path, axes):
    for name in ("a.idx3", "a.idx3.gz"):
        path = write(tmp_path, name, bytes([0, 0, 8, axes]) + b"\xff" * 4 * axes + b"data")
        with pytest.raises(DataError, match=rf"{name}: (damaged|truncated)"):
            load(path)
