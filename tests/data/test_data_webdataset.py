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


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (tarfile.SYMTYPE, "b.png: expected a file, found a link to 'a.png'; write the archive with tar --dereference"),
        (tarfile.LNKTYPE, "b.png: expected a file, found a link to 'a.png'"),
        (tarfile.FIFOTYPE, "b.png: expected a file, found a device"),
    ],
)
def test_members_that_are_no_files_are_not_passed_over(tmp_path: Path, kind: bytes, message: str) -> None:
    """Their samples would be missing, and nobody would know."""
    path = write(tmp_path / "a.tar", [("a.png", png(PIXELS[0]))])
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("b.png")
        info.type, info.linkname = kind, "a.png" if kind != tarfile.FIFOTYPE else ""
        archive.addfile(info)
    with pytest.raises(DataError, match=f"a.tar: {message}"):
        load(path)


def test_what_lies_behind_the_end_is_not_passed_over(tmp_path: Path) -> None:
    """Two archives put together by cat, and a header that was lost to zeros."""
    content = write(tmp_path / "a.tar", [(f"{i}.png", png(PIXELS[i])) for i in range(2)]).read_bytes()
    second = content.index(b"1.png")
    for damaged in (content + content, content[:second] + bytes(512) + content[second + 512 :]):
        (tmp_path / "a.tar").write_bytes(damaged)
        with pytest.raises(DataError, match=r"a.tar: .*found data behind the block of zeros"):
            load(tmp_path / "a.tar")


def test_compressed_archives_and_fields_that_unpack_without_end(tmp_path: Path) -> None:
    packed = gzip.compress(write(tmp_path / "a.tar", [("a.png", png(PIXELS[0]))]).read_bytes())
    (tmp_path / "a.tar").write_bytes(packed)
    with pytest.raises(DataError, match=r"a.tar: compressed by gzip; expected a plain .tar"):
        load(tmp_path / "a.tar")
    for name in ("a.tar.gz", "a.tgz"):
        (tmp_path / name).write_bytes(packed)
        with pytest.raises(DataError, match=rf"{name}: a compressed archive; unpack it"):
            load(tmp_path / name)
    path = write(tmp_path / "b.tar", [("a.npy.gz", gzip.compress(bytes(2**28 + 1), 1))])
    with pytest.raises(DataError, match=r"b.tar: a: found 268435457 bytes or more, allowed 268435456"):
        load(path)


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
