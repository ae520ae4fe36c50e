"""EDM's zips and folders, EDM2's latents: names sorted, labels by name, grey as one channel, damages refused."""

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from geodiff import DataError, OptimalDenoiser
from geodiff.data import latents, load, load_latents

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
NAMES = [f"00000/img{index:08d}.png" for index in range(5)]
LABELS = [4, 0, 2, 2, 1]


def png(pixels: np.ndarray, mode: str | None = None) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels, mode).save(stream, "png", compress_level=0)
    return stream.getvalue()


def write(path: Path, members: dict[str, bytes], labels: Any = "none") -> Path:
    """A stored zip, as EDM's tool makes it, or a folder if the name has no suffix."""
    if labels != "none":
        members = {**members, "dataset.json": json.dumps({"labels": labels}).encode()}
    if path.suffix:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def pictures() -> dict[str, bytes]:
    """Not in order: a reader sorts."""
    return {name: png(pixels) for name, pixels in reversed(list(zip(NAMES, PIXELS, strict=True)))}


@pytest.mark.parametrize("name", ["set.zip", "set"])
def test_points_by_sorted_name_and_labels_by_name(tmp_path: Path, name: str) -> None:
    listed = [[one, label] for one, label in zip(NAMES, LABELS, strict=True)]
    found = load(write(tmp_path / name, pictures(), listed[::-1]))
    assert np.array_equal(found.data.numpy(), PIXELS.transpose(0, 3, 1, 2))
    assert found.labels is not None
    assert found.labels.tolist() == LABELS
    part = load(tmp_path / name, limit=3)
    assert part.labels is not None
    assert (len(part), part.labels.tolist()) == (3, LABELS[:3])
    assert OptimalDenoiser(tmp_path / name).shape == (3, 8, 8)


def test_grey_pictures_vectors_and_no_labels(tmp_path: Path) -> None:
    grey = {name: png(pixels[..., 0]) for name, pixels in zip(NAMES, PIXELS, strict=True)}
    found = load(write(tmp_path / "grey.zip", grey, None))
    assert np.array_equal(found.data.numpy(), PIXELS[:, None, :, :, 0])
    assert found.labels is None
    poses = [[name, [0.5 * index, 1, -2]] for index, name in enumerate(NAMES)]
    found = load(write(tmp_path / "poses.zip", grey, poses))
    assert found.labels is None
    assert found.vectors is not None
    assert found.vectors.dtype == torch.float32
    assert found.vectors[3].tolist() == [1.5, 1, -2]
    partly = [[name, None if index == 2 else 1] for index, name in enumerate(NAMES)]
    assert load(write(tmp_path / "partly.zip", grey, partly)).labels is None


def test_numbered_folders_without_a_table_are_no_classes(tmp_path: Path) -> None:
    assert load(write(tmp_path / "bare", pictures())).labels is None


def test_mixed_modes_where_a_mode_is_named(tmp_path: Path) -> None:
    mixed = {NAMES[0]: png(PIXELS[0]), NAMES[1]: png(PIXELS[1, ..., 0])}
    path = write(tmp_path / "set.zip", mixed, None)
    with pytest.raises(DataError, match=r"set.zip: 00000/img00000001.png: size: found 1x8x8, expected 3x8x8 as of"):
        load(path)
    assert load(path, mode="RGB").data.shape == (2, 3, 8, 8)
    palette = io.BytesIO()
    Image.fromarray(PIXELS[0]).convert("P").save(palette, "png")
    path = write(tmp_path / "palette.zip", {NAMES[0]: palette.getvalue()}, None)
    with pytest.raises(DataError, match=r"pixel mode: found P; allowed L, RGB, or mode='RGB' or 'L' to convert all"):
        load(path)
    assert load(path, mode="RGB").data.shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("members", "labels", "message"),
    [
        (pictures(), [[name, 0] for name in NAMES[1:]], "dataset.json: labels: found none for '00000/img00000000.png'"),
        (
            pictures(),
            [[name, "cat"] for name in NAMES],
            "label: expected a class 0, 1, ..., or a list of numbers, found 'cat'",
        ),
        (pictures(), [1, 2, 3], r"labels: expected pairs \[name, label\]"),
        (pictures(), [[name, [1.0] * (index + 1)] for index, name in enumerate(NAMES)], "label: found 2 numbers, exp"),
        ({"../../etc/evil.png": png(PIXELS[0])}, None, "member '../../etc/evil.png': .* leads out of it"),
        ({"/abs.png": png(PIXELS[0])}, None, "member '/abs.png'"),
        ({"a.txt": b"x"}, None, "expected pictures .* found none"),
        ({"train_data_batch_1.npz": b"x"}, None, "found none; unpack it and give the folder"),
        ({NAMES[0]: png(PIXELS[0]), "b.npy": b""}, None, "found both; keep one kind"),
        ({NAMES[0]: png(PIXELS[0])[:-40]}, None, r"img00000000.png: damaged, truncated or not a picture"),
        ({NAMES[0]: png(PIXELS[0]), NAMES[1]: png(PIXELS[1, :6])}, None, "size: found 3x6x8, expected 3x8x8"),
    ],
)
def test_damages(tmp_path: Path, members: dict[str, bytes], labels: Any, message: str) -> None:
    path = write(tmp_path / "set.zip", members, labels)
    with pytest.raises(DataError, match=message) as refused:
        load(path)
    assert "set.zip" in str(refused.value)


def transparent() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS[0]).save(stream, "png", transparency=(1, 2, 3))
    return stream.getvalue()


def animated() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS[0]).save(stream, "png", save_all=True, append_images=[Image.fromarray(PIXELS[1])])
    return stream.getvalue()


@pytest.mark.parametrize(
    ("members", "table", "message"),
    [
        (pictures(), {"lapels": []}, r"dataset.json: expected .*or null for no labels, found keys \['lapels'\]"),
        (pictures(), [], "dataset.json: expected .*, found a list"),
        (
            pictures(),
            {"labels": [*([n, 0] for n in NAMES), [NAMES[0], 5]]},
            "labels: found 0 and 5 for '00000/img",
        ),
        (
            pictures(),
            {"labels": [[n, 2**70] for n in NAMES]},
            "00.png: label: found 1180.*, allowed what int64",
        ),
        (pictures(), {"labels": [[n, [float("nan")]] for n in NAMES]}, "label: expected finite float32 numbers"),
        (pictures(), {"labels": [[n, [1e300]] for n in NAMES]}, "label: expected finite float32 numbers"),
        ({NAMES[0]: transparent()}, {"labels": None}, "found RGB with a transparent colour; allowed L, RGB, or mode="),
        ({NAMES[0]: animated()}, {"labels": None}, "frames: found several; allowed one picture per file"),
    ],
)
def test_what_would_be_read_as_something_else(
    tmp_path: Path, members: dict[str, bytes], table: Any, message: str
) -> None:
    path = write(tmp_path / "set.zip", {**members, "dataset.json": json.dumps(table).encode()})
    with pytest.raises(DataError, match=rf"set\.zip.*{message}"):
        load(path)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_name_that_a_zip_has_twice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for pixels in PIXELS[:2]:
            archive.writestr(NAMES[0], png(pixels))
    with pytest.raises(DataError, match=r"set.zip: member '00000/img00000000.png': found twice; make the archive anew"):
        load(tmp_path / "set.zip")


def test_members_that_a_damaged_directory_steps_over(tmp_path: Path) -> None:
    """The length of a comment in the directory, which zipfile skips, and with it the next members."""
    path = write(tmp_path / "set.zip", pictures(), None)
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    size = content.index(b"PK\x01\x02", entry + 4) - entry
    content[entry + 32] += size
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"set.zip: damaged: its directory promises 6 members and lists 5"):
        load(path)


def test_a_table_whose_name_is_damaged(tmp_path: Path) -> None:
    path = write(tmp_path / "set.zip", pictures(), [[name, 0] for name in NAMES])
    content = bytearray(path.read_bytes())
    content[content.rindex(b"dataset.json")] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"set.zip: damaged.* at 'eataset.json'"):
        load(path)


def test_what_unpacks_to_more_than_a_point_can_be(tmp_path: Path) -> None:
    """Refused by what the archive says of it, before anything is unpacked."""
    with (
        zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(NAMES[0], "w") as member,
    ):
        for _ in range(257):
            member.write(bytes(2**20))
    with pytest.raises(DataError, match=r"set.zip: 00000/img00000000.png: found 269484032 bytes or more, allowed 2684"):
        load(tmp_path / "set.zip")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are POSIX")
def test_a_pipe_among_the_pictures_is_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path / "set", pictures(), None)
    os.mkfifo(tmp_path / "set" / "00000" / "img00000009.png")
    with pytest.raises(DataError, match=r"img00000009.png: expected a file, found a device, pipe or socket"):
        load(tmp_path / "set")


def test_a_flipped_byte_in_a_zip_is_seen(tmp_path: Path) -> None:
    path = write(tmp_path / "set.zip", pictures(), None)
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"set.zip: damaged, truncated or not a .zip archive"):
        load(path)


def raw_latents(count: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [
        np.concatenate([3 * rng.standard_normal((4, 4, 4)), rng.random((4, 4, 4))]).astype(np.float32)
        for _ in range(count)
    ]


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_latents_are_scaled_means_and_their_deviations(tmp_path: Path) -> None:
    raw = raw_latents()
    members = {f"00000/img-mean-std-{index:08d}.npy": npy(array) for index, array in enumerate(raw)}
    listed = [[name, label] for name, label in zip(members, [7, 3], strict=True)]
    path = write(tmp_path / "latents.zip", members, listed)
    found, deviations = load_latents(path)
    scale = 0.5 / np.array(latents.RAW_STD)[:, None, None]
    for index, array in enumerate(raw):
        mean = (array[:4] - np.array(latents.RAW_MEAN)[:, None, None]) * scale
        np.testing.assert_allclose(found.data[index].numpy(), mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(deviations[index].numpy(), array[4:] * scale, rtol=1e-6)
    assert found.labels is not None
    assert found.labels.tolist() == [7, 3]
    assert found.latent
    assert "standard deviations left out" in found.layout
    with pytest.raises(ValueError, match=r"augment: .* latents"):
        OptimalDenoiser(path, augment="hflip")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 4), np.float32), r"expected float32 \[8, h, w\].*found float32 \[4, 4, 4\]"),
        (np.zeros((8, 4, 4)), "found float64"),
        (np.full((8, 4, 4), -1, np.float32), "standard deviations >= 0"),
        (np.full((8, 4, 4), np.nan, np.float32), "expected finite means"),
    ],
)
def test_latents_of_another_kind(tmp_path: Path, array: np.ndarray, message: str) -> None:
    path = write(tmp_path / "latents.zip", {"00000/img-mean-std-00000000.npy": npy(array)}, None)
    with pytest.raises(DataError, match=message):
        load(path)


def test_an_array_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([object()], dtype=object), allow_pickle=True)
    path = write(tmp_path / "set.zip", {"00000/img-mean-std-00000000.npy": stream.getvalue()}, None)
    with pytest.raises(DataError, match="allow_pickle"):
        load(path)
