"""Folders of images."""

import json
import os
import struct
import sys
import zlib
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
    with pytest.warns(UserWarning, match="2 left out"):
        dataset = load(tmp_path)
    assert dataset.data.dtype == torch.uint8
    assert dataset.data.is_contiguous()
    expected = np.stack([first, second, third]).reshape(3, 6, 5, -1).transpose(0, 3, 1, 2)
    assert np.array_equal(dataset.data.numpy(), expected)
    assert (dataset.labels, dataset.classes) == (None, ())
    assert (dataset.name, dataset.layout) == (tmp_path.name, "CHW")


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_pictures_become_what_mode_says(tmp_path, mode, channels):
    grey, colour = write(tmp_path / "a.png", 6, 5), write(tmp_path / "b.png", 6, 5, 3)
    data = load(tmp_path, mode=mode).data
    assert data.shape == (2, channels, 6, 5)
    for point, pixels in zip(data, (grey, colour), strict=True):
        expected = np.array(Image.fromarray(pixels).convert(mode)).reshape(6, 5, -1).transpose(2, 0, 1)
        assert np.array_equal(point.numpy(), expected)


def test_mode_is_refused_where_nothing_is_decoded(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 4, 4), np.uint8))
    for source in (tmp_path / "a.npy", "digits", torch.zeros(2, 3)):
        with pytest.raises(ValueError, match=r"mode: found .L., but .* holds arrays, .*; allowed None"):
            load(source, mode="L")


def test_subfolders_are_classes(tmp_path):
    dog, late_cat, cat = (write(tmp_path / name) for name in ("dog/1.png", "cat/sub/2.png", "cat/1.PNG"))
    (tmp_path / "empty").mkdir()
    write(tmp_path / ".cache/1.png")
    with pytest.warns(UserWarning, match=r"1 left out, .*: \.cache/"):
        dataset = load(tmp_path)
    assert dataset.classes == ("cat", "dog", "empty")
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
    assert load(tmp_path, split="test").classes == ("cat", "dog")


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


# ---- nothing is left out silently ----


def test_what_is_no_image_is_counted_and_named(tmp_path):
    write(tmp_path / "cat/1.png")
    write(tmp_path / "cat/.hidden.png")
    for name in ("README.txt", "cat/2.heic", "dog/notes", ".DS_Store", "cat/Thumbs.db", "cat/._1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    with pytest.warns(UserWarning, match=r"4 left out, .*: README.txt, cat/\.hidden\.png, cat/2\.heic, dog/notes"):
        dataset = load(tmp_path)
    assert dataset.left_out == ("README.txt", "cat/.hidden.png", "cat/2.heic", "dog/notes")
    assert (dataset.classes, len(dataset)) == (("cat", "dog"), 1)


def test_what_lies_beside_splits_is_named(tmp_path):
    write(tmp_path / "train/1.png")
    write(tmp_path / "stray.png")
    with pytest.warns(UserWarning, match=r"1 left out, .*: stray\.png"):
        assert len(load(tmp_path)) == 1


def test_links_to_folders_and_images_are_followed(tmp_path):
    for name in "abc":
        write(tmp_path / f"store/{name}.png")
    write(tmp_path / "data/dog/x.png")
    (tmp_path / "data/cat").mkdir()
    (tmp_path / "data/cat/batch").symlink_to(tmp_path / "store")
    (tmp_path / "data/cat/again").symlink_to(tmp_path / "data/cat")  # a loop
    (tmp_path / "data/emu").symlink_to(tmp_path / "store")
    dataset = load(tmp_path / "data")
    assert dataset.classes == ("cat", "dog", "emu")
    assert dataset.labels.tolist() == [0, 0, 0, 1, 2, 2, 2]


@pytest.mark.parametrize("place", ["1.png", "cat/1.png", "cat", "cat/batch"])
def test_a_link_to_nothing_is_named(tmp_path, place):
    write(tmp_path / ("0.png" if place == "1.png" else "dog/0.png"))
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=rf"{place}: a link to .*gone, which is not there"):
        load(tmp_path)


def test_splits_agree_on_classes(tmp_path):
    for name in ("train/a/1.png", "train/b/1.png", "train/c/1.png", "test/a/1.png", "test/c/1.png", "val/d/1.png"):
        write(tmp_path / name)
    for split, labels in (("train", [0, 1, 2]), ("test", [0, 2])):
        dataset = load(tmp_path, split=split)
        assert (dataset.classes, dataset.labels.tolist()) == (("a", "b", "c", "d"), labels)


def write_deep(path: Path, kind: str) -> None:
    """A 4x4 image of 16-bit samples, which Pillow cannot write."""
    channels = {"grey": 1, "LA": 2, "RGB": 3, "RGBA": 4}[kind]
    raw = b"".join(b"\0" + np.full((4, channels), 0x1234, ">u2").tobytes() for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 16, {"grey": 0, "LA": 4, "RGB": 2, "RGBA": 6}[kind], 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    with path.open("ab") as file:
        for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")):
            file.write(struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)))


@pytest.mark.parametrize("kind", ["grey", "LA", "RGB", "RGBA"])
def test_sixteen_bit_colour_is_named(tmp_path, kind):
    write_deep(tmp_path / "a.png", kind)
    with pytest.raises(DataError, match=r"a\.png: pixel mode: found .*16.*; allowed the 8-bit modes"):
        load(tmp_path)


@pytest.mark.parametrize("head", [b"P6\n4 4\n65535\n", b"P6\n4 4\n1000\n", b"P5\n4 4\n65535\n", b"P3\n4 4\n300\n"])
def test_deep_ppm_is_named(tmp_path, head):
    (tmp_path / "a.ppm").write_bytes(head + (b"1 " if head[1:2] == b"3" else b"\0\1") * 48)
    with pytest.raises(DataError, match=r"a\.ppm: pixel mode: found"):
        load(tmp_path)


def write_deep_tiff(path: Path) -> None:
    """4x4 RGB of 16 bits, little-endian, one strip."""
    tags = [(256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 140)]
    tags += [(277, 3, 1, 3), (278, 3, 1, 4), (279, 4, 1, 96)]
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + struct.pack("<I", 0)
    path.write_bytes(head.ljust(134, b"\0") + struct.pack("<HHH", 16, 16, 16) + b"\x34\x12" * 48)


def test_deep_tiff_is_named(tmp_path):
    write_deep_tiff(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: pixel mode: found RGB of 16 bits"):
        load(tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_exif_orientation_is_followed(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    array = np.zeros((16, 32, 3), np.uint8)
    array[:8, :8] = 255  # the corner that is stored first
    Image.fromarray(array).save(tmp_path / f"a.{suffix}", exif=exif, **({"quality": 95} if suffix == "jpg" else {}))
    data = load(tmp_path).data[0]
    assert data.shape == ((3, 32, 16) if orientation > 4 else (3, 16, 32))
    bottom, right = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    assert data[:, -4 if bottom else 3, -4 if right else 3].min() > 200
    assert (data > 128).float().mean() == pytest.approx(1 / 8, abs=0.02)


def edm(folder: Path, labels: object) -> None:
    for i in range(4):
        write(folder / f"{i // 2:05d}/img{i:08d}.png")
    if labels != "none":
        (folder / "dataset.json").write_text(json.dumps({"labels": labels}))


NAMES = [f"{i // 2:05d}/img{i:08d}.png" for i in range(4)]


def test_shards_of_edm_have_the_labels_of_their_file(tmp_path):
    edm(tmp_path, [[name, label] for name, label in zip(NAMES, (3, 5, 7, 3), strict=True)])
    dataset = load(tmp_path)
    assert (dataset.labels.tolist(), dataset.classes, dataset.left_out) == ([3, 5, 7, 3], (), ())
    assert load(tmp_path, limit=2).labels.tolist() == [3, 5]


@pytest.mark.parametrize("labels", [None, "none"])
def test_shards_are_no_classes(tmp_path, labels):
    edm(tmp_path, labels)
    dataset = load(tmp_path)
    assert (len(dataset), dataset.labels, dataset.classes) == (4, None, ())


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([[NAMES[0], 1]], r"found none for '00000/img00000001\.png'"),
        ([[name, 0.5] for name in NAMES], "found 0.5"),
        ([[name, -1] for name in NAMES], "found -1"),
        ([[name, 1] for name in [*NAMES, "gone.png"]], "found 1 of others, such as gone.png"),
        (7, "expected"),
    ],
)
def test_labels_that_do_not_fit_are_named(tmp_path, labels, words):
    edm(tmp_path, labels)
    with pytest.raises(DataError, match=rf"dataset\.json: .*{words}"):
        load(tmp_path)
