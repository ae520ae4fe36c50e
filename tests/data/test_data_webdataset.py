"""WebDataset's tars: runs of members with one key, in order, nothing unpickled, an end that is there."""

import gzip
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geodiff import DataError
from geodiff.data import load

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
EXPECTED = PIXELS.transpose(0, 3, 1, 2)


def png(pixels: np.ndarray, kind: str = "png") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **({"lossless": True} if kind == "webp" else {}))
    return stream.getvalue()


def write(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_a_tar_of_the_library_itself(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="pip install webdataset")
    with webdataset.TarWriter(str(tmp_path / "set-000000.tar")) as sink:
        for index, pixels in enumerate(PIXELS):
            sink.write({"__key__": f"{index:04d}", "png": Image.fromarray(pixels), "cls": index % 3})
    found = load(tmp_path / "set-000000.tar")
    assert np.array_equal(found.data.numpy(), EXPECTED)
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_shards_by_braces_and_by_folder(tmp_path: Path) -> None:
    for shard in range(3):
        members = [(f"{i}.png", png(PIXELS[2 * shard + i])) for i in range(2)]
        write(tmp_path / f"set-{shard:06d}.tar", members)
    for source in (tmp_path / "set-{000000..000002}.tar", tmp_path):
        assert np.array_equal(load(str(source)).data.numpy(), EXPECTED)
    assert np.array_equal(load(tmp_path, limit=3).data.numpy(), EXPECTED[:3])
    with pytest.raises(FileNotFoundError, match=r"set-000003\.tar"):
        load(str(tmp_path / "set-{000000..000003}.tar"))


def test_keys_and_fields(tmp_path: Path) -> None:
    """Interleaved keys are samples of their own; upper case, folders with dots, other fields and members."""
    array = io.BytesIO()
    np.save(array, PIXELS[3])
    members = [
        ("README", b"no dot"),
        ("__index__", b""),
        ("a.b/c.PNG", png(PIXELS[0])),
        ("a.b/c.CLS", b" 1\n"),
        ("a.b/c.seg.png", png(PIXELS[5])),
        ("a.b/d.webp", png(PIXELS[1], "webp")),
        ("a.b/d.cls", b"0"),
        ("a.b/d.evil.pyd", pickle.dumps(print)),
        ("a.b/c.png", png(PIXELS[2])),  # the key of the first again, later: another sample
        ("a.b/c.cls", b"2"),
        ("e.npy.gz", gzip.compress(array.getvalue())),
        ("e.cls.gz", gzip.compress(b"-7")),
    ]
    found = load(write(tmp_path / "a.tar", members))
    assert np.array_equal(found.data.numpy(), EXPECTED[:4])
    assert found.labels is not None
    assert found.labels.tolist() == [1, 0, 2, -7]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.png", png(PIXELS[0])), ("a.PNG", png(PIXELS[0]))], "a.PNG: field 'png': found twice in one sample"),
        ([("a.png", png(PIXELS[0])), ("a.cls", b"cat")], "a: cls: expected an integer in ASCII, found b'cat'"),
        ([("a.png", png(PIXELS[0])), ("b.cls", b"1")], "b: fields: found cls; expected one of png, jpg"),
        ([("a.png", b"nothing")], "a: damaged, truncated or not a picture"),
        ([("a.npy", b"nothing")], "a: damaged, truncated or not a .npy array"),
        ([("a.png", png(PIXELS[0])), ("b.png", png(PIXELS[1, :4]))], "b: size: found 3x4x8, expected 3x8x8"),
        ([("a.png", png(PIXELS[0])), ("a.cls", b"1"), ("b.png", png(PIXELS[1]))], "b: label: found none, expected an"),
        ([("a.npy.gz", b"nothing")], "a: damaged, truncated or not a gzipped field"),
        ([("README", b"")], "expected points, found none"),
    ],
)
def test_damages(tmp_path: Path, members: list[tuple[str, bytes]], message: str) -> None:
    with pytest.raises(DataError, match=f"a.tar.*{message}"):
        load(write(tmp_path / "a.tar", members))


@pytest.mark.parametrize("keep", [0.1, 0.3, 0.6])
def test_truncated_anywhere(tmp_path: Path, keep: float) -> None:
    """Between two members, too, where a tar reads as a shorter one."""
    path = write(tmp_path / "a.tar", [(f"{i}.png", png(PIXELS[i])) for i in range(6)])
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DataError, match=r"a.tar: (damaged|truncated)"):
        load(path)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        second = archive.getmembers()[2].offset
    path.write_bytes(content[:second])
    with pytest.raises(DataError, match=r"a.tar: truncated: the block of zeros that ends a .tar archive is missing"):
        load(path)
