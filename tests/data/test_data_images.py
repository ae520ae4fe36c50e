"""Folders of images."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from geodiff.base.errors import DataError
from geodiff.data import load

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
RNG = np.random.default_rng(3)


def write(path: Path, *shape: int, mode: str | None = None) -> np.ndarray:
    array = RNG.integers(0, 256, shape or (6, 5, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return array


@pytest.mark.parametrize("shape", [(6, 5, 3), (6, 5), (6, 5, 4)])
def test_images_come_sorted_as_chw(tmp_path, shape):
    second, first, third = (write(tmp_path / name, *shape) for name in ("b.png", "a.png", "c.tif"))
    (tmp_path / "README.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_text("not an image either")
    dataset = load(tmp_path)
    assert dataset.data.dtype == torch.uint8
    assert dataset.data.is_contiguous()
    expected = np.stack([first, second, third]).reshape(3, 6, 5, -1).transpose(0, 3, 1, 2)
    assert np.array_equal(dataset.data.numpy(), expected)
    assert (dataset.labels, dataset.classes) == (None, ())
    assert (dataset.name, dataset.layout) == (tmp_path.name, "CHW")


def test_subfolders_are_classes(tmp_path):
    dog, late_cat, cat = (write(tmp_path / name) for name in ("dog/1.png", "cat/sub/2.png", "cat/1.PNG"))
    (tmp_path / "empty").mkdir()
    write(tmp_path / ".cache/1.png")
    dataset = load(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert dataset.labels is not None
    assert dataset.labels.dtype == torch.int64
    assert dataset.labels.tolist() == [0, 0, 1]
    assert np.array_equal(dataset.data.permute(0, 2, 3, 1).numpy(), np.stack([cat, late_cat, dog]))


def test_limit_leaves_later_images_unread_and_classes_whole(tmp_path):
    write(tmp_path / "cat/1.png")
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog/2.png").write_bytes(b"damaged")
    dataset = load(tmp_path, limit=1)
    assert dataset.data.shape == (1, 3, 6, 5)
    assert dataset.classes == ("cat", "dog")
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [0]


def test_flat_and_hwc(tmp_path):
    array = write(tmp_path / "a.png")
    assert np.array_equal(load(tmp_path, layout="flat").data.numpy(), array.transpose(2, 0, 1).reshape(1, -1))
    with pytest.raises(ValueError, match="layout: this source is known to be CHW"):
        load(tmp_path, layout="hwc")


def test_split_folders(tmp_path):
    write(tmp_path / "train/cat/1.png")
    write(tmp_path / "train/dog/1.png")
    write(tmp_path / "test/dog/1.png")
    assert load(tmp_path).classes == ("cat", "dog")
    assert load(tmp_path, split="test").classes == ("dog",)


def test_missing_split_folder(tmp_path):
    write(tmp_path / "train/1.png")
    with pytest.raises(FileNotFoundError, match=r"no folder 'test' inside for split='test'; found \['train'\]"):
        load(tmp_path, split="test")


def test_train_may_be_a_class(tmp_path):
    write(tmp_path / "train/1.png")
    write(tmp_path / "car/1.png")
    assert load(tmp_path).classes == ("car", "train")
    with pytest.raises(ValueError, match=r"split: found 'test', but the folder .* has no splits"):
        load(tmp_path, split="test")


@pytest.mark.parametrize(
    ("modes", "channels"),
    [
        (("L", "RGB"), 3),
        (("RGB", "L"), 3),
        (("L", "RGBA", "RGB"), 4),
        (("1", "L"), 1),
        (("P", "L"), 3),
        (("LA",), 4),
    ],
)
def test_mixed_modes_take_the_least_that_holds_all(tmp_path, modes, channels):
    grey = np.repeat(RNG.integers(0, 2, (6, 5, 1), dtype=np.uint8) * 255, 3, axis=2)
    for number, mode in enumerate(modes):
        Image.fromarray(grey).convert(mode).save(tmp_path / f"{number}.png")
    data = load(tmp_path).data
    assert data.shape == (len(modes), channels, 6, 5)
    for image in data:
        assert np.array_equal(image[0].numpy(), grey[..., 0])
    if channels == 4:
        assert (data[:, 3] == 255).all()


def test_transparent_colour_counts_as_alpha(tmp_path):
    image = Image.fromarray(np.array([[[10, 20, 30], [1, 2, 3]]], np.uint8))
    image.save(tmp_path / "a.png", transparency=(1, 2, 3))
    assert load(tmp_path).data[0, :, 0].tolist() == [[10, 1], [20, 2], [30, 3], [255, 0]]


def test_jpeg_is_what_pillow_decodes(tmp_path):
    write(tmp_path / "a.jpg", 16, 24, 3)
    with Image.open(tmp_path / "a.jpg") as file:
        expected = np.array(file)
    assert np.array_equal(load(tmp_path).data[0].permute(1, 2, 0).numpy(), expected)


def test_other_size_is_named(tmp_path):
    write(tmp_path / "a.png", 6, 5, 3)
    write(tmp_path / "b.png", 6, 7, 3)
    with pytest.raises(DataError, match=r"b\.png: size: found 7x6, expected 5x6 as in a\.png"):
        load(tmp_path)


def test_sixteen_bit_is_named(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: pixel mode: found I;16; allowed the 8-bit modes"):
        load(tmp_path)


def test_animation_is_named(tmp_path):
    frames = [Image.fromarray(np.full((4, 4), level, np.uint8)) for level in (0, 255)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"a\.gif: frames: found several"):
        load(tmp_path)


def test_images_beside_class_folders(tmp_path):
    write(tmp_path / "a.png")
    write(tmp_path / "cat/a.png")
    with pytest.raises(DataError, match=r"a\.png: lies beside the class folder 'cat'"):
        load(tmp_path)


@pytest.mark.parametrize("content", [(), ("notes.txt",)])
def test_folder_without_images(tmp_path, content):
    for name in content:
        (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=r"the folder holds no data; expected images \(\.png"):
        load(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "webp", "tif", "ppm"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9])
def test_truncated_image_is_named(tmp_path, suffix, share):
    write(tmp_path / "a.png", 40, 30, 3)
    path = tmp_path / f"b.{suffix}"
    write(path, 40, 30, 3)
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.raises(DataError, match=rf"b\.{suffix}: damaged, truncated or not an image"):
        load(tmp_path)


def test_flipped_bytes_load_or_are_reported(tmp_path):
    path = tmp_path / "a.png"
    write(path, 4, 4, 3)
    good = path.read_bytes()
    outcomes = set()
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x10]) + good[position + 1 :])
        try:
            outcomes.add(type(load(tmp_path)))
        except DataError:
            outcomes.add(DataError)
    assert DataError in outcomes


def test_missing_pillow_names_the_extra(tmp_path, monkeypatch):
    write(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"a folder of images needs the package pillow.*optimal-denoiser\[data\]"):
        load(tmp_path)
