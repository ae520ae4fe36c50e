"""CIFAR-10 and CIFAR-100 python batches."""

import os
import pickle
import resource
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geodiff.base.errors import DataError
from geodiff.data import load

RNG = np.random.default_rng(2)
PIXELS = RNG.integers(0, 256, (6, 3072), dtype=np.uint8)
LABELS = [3, 1, 4, 1, 5, 9]


def batch(pixels: np.ndarray = PIXELS, labels: Any = LABELS, key: str = "labels") -> dict[str, Any]:
    return {"batch_label": "batch 1 of 5", key: labels, "data": pixels, "filenames": ["a.png"] * len(pixels)}


def write(path: Path, content: Any, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def python2_batch(pixels: np.ndarray, labels: list[int]) -> bytes:
    """The opcodes that Python 2 wrote into the published files: byte-string keys and numpy 1 names."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value

    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + integer(0) + integer(1) + b"tR"
    dtype += b"(" + integer(3) + text(b"|") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + integer(0) + b"t" + text(b"b") + b"tR"
    array += b"(" + integer(1) + b"(" + b"".join(map(integer, pixels.shape)) + b"t" + dtype
    array += b"\x89" + text(pixels.tobytes()) + b"tb"
    entries = text(b"data") + array + text(b"labels") + b"](" + b"".join(map(integer, labels)) + b"e"
    return b"\x80\x02}(" + entries + b"u."


def test_python2_batch_equals_what_pickle_itself_reads(tmp_path):
    content = python2_batch(PIXELS, LABELS)
    assert np.array_equal(pickle.loads(content, encoding="bytes")[b"data"], PIXELS)
    (tmp_path / "data_batch_1").write_bytes(content)
    dataset = load(tmp_path / "data_batch_1")
    assert np.array_equal(dataset.data.numpy(), PIXELS.reshape(6, 3, 32, 32))
    assert dataset.labels is not None
    assert dataset.labels.dtype == torch.int64
    assert dataset.labels.tolist() == LABELS


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("pixels", [PIXELS, np.asfortranarray(PIXELS), PIXELS[::2]], ids=["c", "fortran", "strided"])
@pytest.mark.parametrize("as_array", [False, True])
def test_every_pickle_protocol(tmp_path, protocol, pixels, as_array):
    labels = LABELS[: len(pixels)]
    path = write(tmp_path / "test_batch", batch(pixels, np.array(labels) if as_array else labels), protocol)
    dataset = load(path)
    assert np.array_equal(dataset.data.numpy(), pixels.reshape(-1, 3, 32, 32))
    assert dataset.data.dtype == torch.uint8
    assert dataset.labels is not None
    assert dataset.labels.tolist() == labels
    assert (dataset.name, dataset.layout) == ("test_batch", "CHW")


def test_big_endian_labels(tmp_path):
    labels = load(write(tmp_path / "test_batch", batch(labels=np.array(LABELS, ">i4")))).labels
    assert labels is not None
    assert labels.tolist() == LABELS


def test_flat_and_limit(tmp_path):
    path = write(tmp_path / "data_batch_1", batch())
    assert torch.equal(load(path, layout="flat", limit=2).data, torch.from_numpy(PIXELS[:2]))
    with pytest.raises(ValueError, match="layout: this source is known to be CHW"):
        load(path, layout="hwc")


def cifar10(folder: Path, count: int = 3) -> list[np.ndarray]:
    parts = [RNG.integers(0, 256, (4, 3072), dtype=np.uint8) for _ in range(count)]
    for number, part in enumerate(parts, 1):
        write(folder / f"data_batch_{number}", batch(part, [number] * 4))
    write(folder / "test_batch", batch())
    write(folder / "batches.meta", {"label_names": ["airplane"]})
    return parts


def test_cifar10_folder_in_order_of_the_numbers(tmp_path):
    parts = cifar10(tmp_path, 11)  # ten and more: as text, data_batch_10 would come before data_batch_2
    dataset = load(tmp_path)
    assert np.array_equal(dataset.data.numpy(), np.concatenate(parts).reshape(-1, 3, 32, 32))
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [number for number in range(1, 12) for _ in range(4)]
    assert np.array_equal(load(tmp_path, split="test").data.numpy(), PIXELS.reshape(6, 3, 32, 32))


def test_limit_leaves_later_batches_unread(tmp_path):
    parts = cifar10(tmp_path)
    (tmp_path / "data_batch_3").write_bytes(b"\x80damaged")
    dataset = load(tmp_path, limit=8)
    assert np.array_equal(dataset.data.numpy(), np.concatenate(parts[:2]).reshape(8, 3, 32, 32))
    with pytest.raises(DataError, match="data_batch_3: damaged"):
        load(tmp_path, limit=9)


def test_missing_batches(tmp_path):
    cifar10(tmp_path)
    (tmp_path / "data_batch_2").unlink()
    with pytest.raises(FileNotFoundError, match=r"batches missing: found data_batch numbers \[1, 3\]"):
        load(tmp_path)
    (tmp_path / "test_batch").unlink()
    with pytest.raises(FileNotFoundError, match="no CIFAR batch for split='test'"):
        load(tmp_path, split="test")


def test_only_the_test_batch(tmp_path):
    write(tmp_path / "test_batch", batch())
    assert len(load(tmp_path, split="test")) == 6
    with pytest.raises(FileNotFoundError, match="no CIFAR batch for split='train'"):
        load(tmp_path)


def test_cifar100_folder_gives_fine_labels(tmp_path):
    content = batch(labels=[99, 0, 1, 2, 3, 4], key="fine_labels") | {"coarse_labels": [0] * 6}
    write(tmp_path / "train", content)
    write(tmp_path / "meta", {"fine_label_names": ["apple"]})
    labels = load(tmp_path).labels
    assert labels is not None
    assert labels.tolist() == [99, 0, 1, 2, 3, 4]
    with pytest.raises(FileNotFoundError, match="no CIFAR batch for split='test'"):
        load(tmp_path, split="test")
    assert len(load(tmp_path / "train")) == 6


class Runs:
    """A pickle that would run a program."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def test_nothing_in_the_pickle_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "data_batch_1", batch() | {"extra": Runs()})
    with pytest.raises(DataError, match=r"data_batch_1: .*system, which a CIFAR batch does not need; not loaded"):
        load(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", [np.array([{}]), np.array(["a"]), np.zeros(2, "i4,f4"), np.array([1 + 2j])])
def test_arrays_of_other_kinds_are_not_built(tmp_path, value):
    path = write(tmp_path / "data_batch_1", batch() | {"data": value})
    with pytest.raises(DataError, match=r"data_batch_1: damaged, truncated or not"):
        load(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], r"expected a CIFAR batch \(a dict\), found list"),
        ({"labels": LABELS}, r"keys: found \['labels'\]; expected data"),
        ({"data": PIXELS}, r"keys: found \['data'\]; expected data, and labels or fine_labels"),
        (batch(PIXELS.astype(np.float64)), r"data: expected uint8 \[n, 3072\].*found float64"),
        (batch(PIXELS[:, :100]), r"data: expected uint8 \[n, 3072\].*found uint8 \(6, 100\)"),
        (batch(PIXELS[:0], []), r"data: expected uint8 \[n, 3072\] with n >= 1"),
        (batch(PIXELS[0]), r"data: expected uint8 \[n, 3072\]"),
        (batch(labels=LABELS[:3]), r"labels: expected one per point, shape \(6,\), found \(3,\)"),
        (batch(labels=[0.5] * 6), r"labels: expected integers, found float64"),
        (batch(labels=[[1], [1, 2], 0, 0, 0, 0]), r"damaged, truncated or not a CIFAR batch"),
    ],
)
def test_unsuitable_batches(tmp_path, content, words):
    path = write(tmp_path / "data_batch_1", content, 4)
    with pytest.raises(DataError, match=rf"data_batch_1: {words}"):
        load(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99, 0.9999])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_truncated_batch(tmp_path, protocol, share):
    path = write(tmp_path / "data_batch_1", batch(), protocol)
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.raises(DataError, match=r"data_batch_1: .*(empty|damaged, truncated)"):
        load(path)


@pytest.mark.parametrize("protocol", [2, 5])
def test_flipped_bytes_load_or_are_reported(tmp_path, protocol):
    """Whatever single byte outside the pixels is wrong: a data set or a DataError, at once and in little memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pixels = np.full((1, 3072), 7, np.uint8)
    good = pickle.dumps(batch(pixels, [1]), protocol)
    start = good.index(bytes([7] * 3072))
    outcomes = set()
    for position in (*range(start), *range(start + 3072, len(good))):
        flipped = good[:position] + bytes([good[position] ^ 0x55]) + good[position + 1 :]
        (tmp_path / "data_batch_1").write_bytes(flipped)
        try:
            outcomes.add(type(load(tmp_path / "data_batch_1")))
        except DataError:
            outcomes.add(DataError)
    assert DataError in outcomes
    # In KiB on Linux, in bytes on macOS. pickle's own C reader asks for 2.8 GiB at one of these bytes.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19
