"""What every format of data keeps: list a writer in FORMATS, and what it wrote is read back bit for bit, or refused."""

import gzip
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from geodiff import DataError, OptimalDenoiser
from geodiff.data import load

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)  # [N, C, H, W]
GREY = IMAGES[:, :1]
LABELS = np.array([0, 1, 2, 0, 1, 2])


def npy(folder: Path) -> Path:
    np.save(folder / "points.npy", IMAGES)
    np.save(folder / "points_labels.npy", LABELS)
    return folder / "points.npy"


def npy_hwc(folder: Path) -> Path:
    np.save(folder / "points.npy", IMAGES.transpose(0, 2, 3, 1).copy())
    np.save(folder / "points_labels.npy", LABELS)
    return folder / "points.npy"


def npz(folder: Path) -> Path:
    np.savez(folder / "points.npz", data=IMAGES, labels=LABELS)
    return folder / "points.npz"


def safetensors(folder: Path) -> Path:
    save_file({"images": IMAGES, "labels": LABELS}, folder / "points.safetensors")
    return folder / "points.safetensors"


def saved(folder: Path) -> Path:
    torch.save({"images": torch.from_numpy(IMAGES), "labels": torch.from_numpy(LABELS)}, folder / "points.pt")
    return folder / "points.pt"


def idx(folder: Path) -> Path:
    for name, values in (("images-idx3", GREY[:, 0]), ("labels-idx1", LABELS.astype(np.uint8))):
        header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
        (folder / f"train-{name}-ubyte").write_bytes(header + values.tobytes())
    return folder / "train-images-idx3-ubyte"


def idx_gz(folder: Path) -> Path:
    plain = idx(folder)
    zipped = plain.with_name(plain.name + ".gz")
    zipped.write_bytes(gzip.compress(plain.read_bytes(), 1))
    plain.unlink()
    return zipped


def cifar(folder: Path) -> Path:
    content = {"data": IMAGES.reshape(6, -1), "labels": LABELS.tolist()}
    (folder / "data_batch_1").write_bytes(pickle.dumps(content, 2))
    return folder / "data_batch_1"


def images(folder: Path) -> Path:
    for i in np.argsort(LABELS, kind="stable"):  # sorted by class, as a folder is read
        (folder / "set" / f"class{LABELS[i]}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[i].transpose(1, 2, 0)).save(folder / "set" / f"class{LABELS[i]}" / f"{i}.png")
    return folder / "set"


Writer = Callable[[Path], Path]
#: writer -> the images as they must be read, in order, and their labels
FORMATS: dict[Writer, tuple[np.ndarray, np.ndarray]] = {
    npy: (IMAGES, LABELS),
    npy_hwc: (IMAGES, LABELS),
    npz: (IMAGES, LABELS),
    safetensors: (IMAGES, LABELS),
    saved: (IMAGES, LABELS),
    idx: (GREY, LABELS),
    idx_gz: (GREY, LABELS),
    cifar: (IMAGES, LABELS),
    images: (IMAGES[np.argsort(LABELS, kind="stable")], np.sort(LABELS)),
}
each = pytest.mark.parametrize("writer", list(FORMATS), ids=lambda writer: writer.__name__)


def file_of(path: Path) -> Path:
    """The file itself, or one of those in a folder."""
    return path if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())[0]


@each
def test_what_was_written_is_read_back_bit_for_bit(tmp_path: Path, writer: Writer) -> None:
    expected, labels = FORMATS[writer]
    found = load(writer(tmp_path))
    assert found.data.dtype == torch.uint8
    assert np.array_equal(found.data.numpy(), expected)
    assert found.labels is not None
    assert found.labels.dtype == torch.int64
    assert np.array_equal(found.labels.numpy(), labels)


@each
def test_a_part_is_its_beginning(tmp_path: Path, writer: Writer) -> None:
    expected, labels = FORMATS[writer]
    found = load(writer(tmp_path), limit=4)
    assert np.array_equal(found.data.numpy(), expected[:4])
    assert found.labels is not None
    assert np.array_equal(found.labels.numpy(), labels[:4])


@each
def test_a_path_is_as_good_as_its_points(tmp_path: Path, writer: Writer) -> None:
    denoiser = OptimalDenoiser(str(writer(tmp_path)))
    x = torch.randn(2, *denoiser.shape)
    expected = OptimalDenoiser(torch.from_numpy(FORMATS[writer][0].copy()))(x, 1.0)
    torch.testing.assert_close(denoiser(x, 1.0), expected, rtol=1e-5, atol=1e-5)


@each
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, writer: Writer, keep: float) -> None:
    path = writer(tmp_path)
    file = file_of(path)
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DataError) as refused:
        load(path)
    assert file.name in str(refused.value)


@each
def test_what_is_missing_is_said(tmp_path: Path, writer: Writer) -> None:
    path = writer(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing"):
        load(path.with_name(f"nothing{path.suffix or '.npy'}"))
