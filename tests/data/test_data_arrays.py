"""Array files: .npy, .npz, .safetensors, .pt."""

import contextlib
import errno
import os
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.utils.data import TensorDataset

from geodiff.base.errors import DataError
from geodiff.data import convert, load

RNG = np.random.default_rng(0)
WRITERS = {
    "npy": lambda path, array: np.save(path, array),
    "npz": lambda path, array: np.savez(path, data=array),
    "safetensors": lambda path, array: save_file({"data": torch.from_numpy(array)}, path),
    "pt": lambda path, array: torch.save({"data": torch.from_numpy(array)}, path),
}
#: Writers of arrays by name.
NAMED = {
    "npz": lambda path, arrays: np.savez(path, **arrays),
    "safetensors": lambda path, arrays: save_file({k: torch.from_numpy(v) for k, v in arrays.items()}, path),
    "pt": lambda path, arrays: torch.save({k: torch.from_numpy(v) for k, v in arrays.items()}, path),
    "pth": lambda path, arrays: torch.save({k: torch.from_numpy(v) for k, v in arrays.items()}, path),
}


def pixels(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(params=WRITERS)
def write(request, tmp_path):
    def write_file(array, stem="points"):
        path = tmp_path / f"{stem}.{request.param}"
        WRITERS[request.param](path, array)
        return path

    return write_file


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_round_trip_keeps_dtype_and_values(write, dtype):
    array = pixels(7, 3, 5, 6).astype(dtype)
    if dtype != np.uint8:
        array -= 128  # in 0..255 there would be a warning
    path = write(array)
    dataset = load(path)
    assert np.array_equal(dataset.data.numpy(), array)
    assert dataset.data.numpy().dtype == dtype
    assert (dataset.name, dataset.layout, dataset.labels) == (path.name, "CHW", None)


def test_path_may_be_text(write):
    assert load(str(write(pixels(2, 3)))).data.shape == (2, 3)


def test_bfloat16_from_safetensors(tmp_path):
    data = torch.randn(4, 6).to(torch.bfloat16)
    save_file({"x": data}, tmp_path / "a.safetensors")
    assert torch.equal(load(tmp_path / "a.safetensors").data, data)


@pytest.mark.parametrize(
    ("stored", "layout", "expected", "words"),
    [
        ((4, 8, 9, 3), "auto", (4, 3, 8, 9), "HWC viewed as CHW"),
        ((4, 8, 9, 1), "auto", (4, 1, 8, 9), "HWC viewed as CHW"),
        ((4, 3, 8, 9), "auto", (4, 3, 8, 9), "CHW"),
        ((4, 16, 8, 8), "auto", (4, 16, 8, 8), "CHW"),
        ((4, 3, 8, 3), "auto", (4, 3, 8, 3), "CHW (HWC would fit too: say layout='hwc' if it is)"),
        ((4, 3, 8, 3), "hwc", (4, 3, 3, 8), "HWC viewed as CHW"),
        ((4, 8, 9, 3), "chw", (4, 8, 9, 3), "CHW"),
        ((4, 8, 9, 3), "flat", (4, 8, 9, 3), "as given"),
        ((4, 8, 9), "auto", (4, 1, 8, 9), "HW viewed as CHW"),
        ((4, 8, 9), "flat", (4, 8, 9), "as given"),
        ((4, 72), "auto", (4, 72), "flat"),
        ((4, 2, 2, 2, 3), "auto", (4, 2, 2, 2, 3), "as given"),
        ((4,), "auto", (4,), "as given"),
    ],
)
def test_layouts(write, stored, layout, expected, words):
    array = pixels(*stored)
    dataset = load(write(array), layout=layout)
    assert tuple(dataset.data.shape) == expected
    assert dataset.layout == words
    if words.startswith("HWC"):
        array = array.transpose(0, 3, 1, 2)
    assert np.array_equal(dataset.data.numpy(), array.reshape(expected))


def test_three_axes_of_floats_are_left_alone(write):
    dataset = load(write(pixels(4, 8, 9).astype(np.float32)))
    assert dataset.data.shape == (4, 8, 9)
    assert dataset.layout == "as given"


def test_layout_that_cannot_be_is_refused(write):
    with pytest.raises(ValueError, match=r"layout: 'hwc' expects .*found shape \(4, 72\)"):
        load(write(pixels(4, 72)), layout="hwc")


def test_limit_cuts_data_and_labels(tmp_path):
    np.savez(tmp_path / "a.npz", images=pixels(6, 4), y=np.arange(6))
    dataset = load(tmp_path / "a.npz", limit=4)
    assert dataset.data.shape == (4, 4)
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("data_key", ["data", "images", "x", "arr_0"])
@pytest.mark.parametrize("label_key", ["labels", "y"])
@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_keys(tmp_path, kind, data_key, label_key):
    array, labels = pixels(5, 4), np.array([3, 1, 4, 1, 5], np.uint8)
    path = tmp_path / f"a.{kind}"
    if kind == "npz":
        np.savez_compressed(path, **{data_key: array, label_key: labels, "other": np.zeros(2)})
    else:
        save_file({data_key: torch.from_numpy(array), label_key: torch.from_numpy(labels)}, path)
    with (
        pytest.warns(UserWarning, match=r"a\.\w+: 1 left out, .*: other") if kind == "npz" else contextlib.nullcontext()
    ):
        dataset = load(path)
    assert dataset.left_out == (("other",) if kind == "npz" else ())
    assert np.array_equal(dataset.data.numpy(), array)
    assert dataset.labels is not None
    assert dataset.labels.dtype == torch.int64
    assert dataset.labels.tolist() == [3, 1, 4, 1, 5]


@pytest.mark.parametrize("kind", NAMED)
def test_unknown_keys_are_listed_and_one_is_chosen(tmp_path, kind):
    path, features, labels = tmp_path / f"a.{kind}", pixels(5, 4), np.arange(5)
    NAMED[kind](path, {"features": features, "others": pixels(3, 2), "y": labels})
    listed = (
        rf"a\.{kind}: keys: found features, others, y; expected one of data, images, x, arr_0, or a name given as key="
    )
    with pytest.raises(DataError, match=listed):
        load(path)
    with pytest.raises(
        DataError, match=rf"a\.{kind}: keys: found features, others, y; expected 'Features', the key given"
    ):
        load(path, key="Features")
    dataset = load(path, key="features")  # "others" was left out on purpose: no warning
    assert np.array_equal(dataset.data.numpy(), features)
    assert dataset.labels is not None
    assert np.array_equal(dataset.labels.numpy(), labels)
    assert dataset.left_out == ("others",)
    converted = convert(path, tmp_path / "features.npy", key="features")
    assert np.array_equal(converted.data.numpy(), features)


@pytest.mark.parametrize("kind", NAMED)
def test_a_key_goes_before_the_usual_names(tmp_path, kind):
    wanted = pixels(5, 2)
    NAMED[kind](tmp_path / f"a.{kind}", {"data": pixels(4, 3), "labels": wanted})
    dataset = load(tmp_path / f"a.{kind}", key="labels")
    assert np.array_equal(dataset.data.numpy(), wanted)
    assert dataset.labels is None


def test_many_names_are_not_all_listed(tmp_path):
    NAMED["npz"](tmp_path / "a.npz", {f"layer{k}": pixels(2, 2) for k in range(30)})
    with pytest.raises(DataError, match=r"found layer0, .*layer19, and 10 more; expected one of"):
        load(tmp_path / "a.npz")


def test_a_key_is_refused_where_there_are_no_names(tmp_path):
    np.save(tmp_path / "a.npy", pixels(2, 3))
    torch.save(torch.zeros(2, 3), tmp_path / "a.pt")
    (tmp_path / "folder").mkdir()
    sources = (torch.zeros(2, 3), "digits", tmp_path / "a.npy", tmp_path / "folder", TensorDataset(torch.zeros(2, 3)))
    for source in sources:
        with pytest.raises(
            ValueError, match=r"key: found 'data', but .* is no file of arrays with names; allowed None"
        ):
            load(source, key="data")
    with pytest.raises(
        ValueError, match=r"key: found 'data', but the file .*a\.pt holds a single tensor; allowed None"
    ):
        load(tmp_path / "a.pt", key="data")


@pytest.mark.parametrize("suffix", ["pt", "pth"])
def test_a_tensor_of_torch_save(tmp_path, suffix):
    data = torch.randn(4, 6).to(torch.bfloat16)
    torch.save(torch.nn.Parameter(data), tmp_path / f"a.{suffix}")
    found = load(tmp_path / f"a.{suffix}").data
    assert torch.equal(found, data)
    assert not found.requires_grad


class Unknown:
    """What only running the file could make."""


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ([torch.zeros(2, 3)], "expected tensors, found list; allowed a tensor, or a dict with tensors"),
        (7, "expected tensors, found int"),
        (Unknown(), "damaged, or holds more than numbers and tensors, so it is not read; allowed a tensor, or a dict"),
        ({"data": [1, 2]}, "'data': expected a tensor, found list; allowed a tensor, or a dict with tensors"),
        ({"data": torch.zeros(2, 3), "labels": [0, 1]}, "'labels': expected a tensor, found list"),
        ({"epoch": 3, 4: torch.zeros(2)}, "keys: found epoch; expected one of data, images, x, arr_0, or a name given"),
        (torch.zeros(2, 3).to_sparse(), "expected a dense tensor, found layout torch.sparse_coo; allowed x.to_dense"),
        (torch.zeros(2, 3, device="meta"), "expected a dense tensor, found one on the device meta, without values"),
        (torch.zeros(2, 3, dtype=torch.float64), "dtype: found float64; allowed uint8, float16, bfloat16, float32"),
    ],
)
def test_what_a_pt_may_not_hold(tmp_path, stored, words):
    torch.save(stored, tmp_path / "a.pt")
    with pytest.raises(DataError, match=rf"a\.pt: .*{words}"):
        load(tmp_path / "a.pt")


def test_a_pt_with_another_byte_is_refused_where_it_has_checksums(tmp_path):
    path, data = tmp_path / "a.pt", torch.from_numpy(pixels(5, 60))

    def save_and_change() -> None:
        torch.save(data, path)
        content, where = path.read_bytes(), path.read_bytes().index(data.numpy().tobytes())
        path.write_bytes(content[:where] + bytes([content[where] ^ 1]) + content[where + 1 :])

    save_and_change()
    with pytest.raises(DataError, match=r"a\.pt: damaged, .*CRC"):
        load(path)
    if hasattr(torch.serialization, "set_crc32_options"):
        kept = torch.serialization.get_crc32_options()
        torch.serialization.set_crc32_options(False)
        try:
            save_and_change()
        finally:
            torch.serialization.set_crc32_options(kept)
        assert int((load(path).data != data).sum()) == 1


def test_a_pt_of_long_ago(tmp_path):
    """Before PyTorch 1.6 files were no zips."""
    data = torch.randn(4, 6)
    torch.save({"x": data}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(load(tmp_path / "a.pt").data, data)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros(5), "labels: expected integers, found float64"),
        (np.zeros(5, bool), "labels: expected integers, found bool"),
        (np.zeros(4, int), r"labels: expected one per point, shape \(5,\), found \(4,\)"),
        (np.zeros((5, 10), int), r"labels: expected one per point, shape \(5,\), found \(5, 10\)"),
    ],
)
@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_bad_labels(tmp_path, kind, labels, words):
    path = tmp_path / f"a.{kind}"
    if kind == "npz":
        np.savez(path, data=pixels(5, 4), labels=labels)
    else:
        save_file({"data": torch.zeros(5, 4), "labels": torch.from_numpy(labels)}, path)
    with pytest.raises(DataError, match=words):
        load(path)


def test_column_of_labels_is_taken(tmp_path):
    np.savez(tmp_path / "a.npz", x=pixels(3, 4), y=np.array([[2], [0], [1]]))
    labels = load(tmp_path / "a.npz").labels
    assert labels is not None
    assert labels.tolist() == [2, 0, 1]


def test_npy_labels_beside(tmp_path):
    np.save(tmp_path / "cats.npy", pixels(3, 4))
    np.save(tmp_path / "cats_labels.npy", np.array([1, 0, 2], ">i4"))
    labels = load(tmp_path / "cats.npy", limit=2).labels
    assert labels is not None
    assert labels.dtype == torch.int64
    assert labels.tolist() == [1, 0]
    np.save(tmp_path / "cats_labels.npy", np.array([1, 0]))
    with pytest.raises(DataError, match=r"cats_labels\.npy: labels: expected one per point"):
        load(tmp_path / "cats.npy")


@pytest.mark.parametrize("dtype", ["float64", "int8", "int32", "int64", "uint16", "bool", "complex64"])
def test_unsupported_dtype_names_the_allowed_ones(write, dtype):
    path = write(np.ones((3, 2), dtype))
    with pytest.raises(
        DataError, match=rf"{path.name}: dtype: found {dtype}; allowed uint8, float16, bfloat16, float32; convert with"
    ):
        load(path)


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_foreign_byte_order_says_how_to_convert(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    WRITERS[kind](path, np.ones((3, 2), ">f4" if sys.byteorder == "little" else "<f4"))
    with pytest.raises(DataError, match=r"byte order: .*newbyteorder"):
        load(path)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 3, 8, 8)])
def test_no_points(write, shape):
    with pytest.raises(DataError, match="expected at least one point"):
        load(write(np.zeros(shape, np.float32)))


def test_single_number(write):
    with pytest.raises(DataError, match=r"expected \[N, \*shape\], found a single number"):
        load(write(np.array(3.0, np.float32)))


def test_objects_are_never_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}]), allow_pickle=True)
    np.savez(tmp_path / "a.npz", data=np.array([{"a": 1}]))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(DataError, match=f"{name}: damaged, truncated or not"):
            load(tmp_path / name)


def test_misnamed_array_files(tmp_path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, pixels(2, 3))
    with pytest.raises(DataError, match=r"a\.npz: expected a \.npz archive, found a single \.npy array"):
        load(tmp_path / "a.npz")
    with (tmp_path / "a.npy").open("wb") as file:
        np.savez(file, pixels(2, 3))
    with pytest.raises(DataError, match=r"a\.npy: damaged, truncated or not a \.npy array"):
        load(tmp_path / "a.npy")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_truncated_file_is_named(write, share):
    path = write(pixels(40, 60))
    size = path.stat().st_size
    os.truncate(path, int(share * size))
    with pytest.raises(DataError, match=rf"{path.name}: .*(empty|damaged, truncated)") as caught:
        load(path)
    assert caught.value.name == str(path)


def test_flipped_bytes_load_or_are_reported(write):
    """Whatever single byte is wrong, the answer is a data set or a DataError, never another exception."""
    path = write(pixels(3, 4))
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 0xA5]) + good[position + 1 :])
        with contextlib.suppress(DataError):
            load(path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc: Linux only")
@pytest.mark.parametrize("kind", ["npy", "safetensors"])
def test_large_file_is_not_read_ahead(tmp_path, kind):
    """256 MiB on disk (sparse), under 16 MiB more in memory after loading, layout change and cut included."""
    path = tmp_path / f"large.{kind}"
    shape = (65536, 32, 32, 4)
    if kind == "npy":
        np.lib.format.open_memmap(path, "w+", np.uint8, shape).flush()
    else:
        save_file({"data": torch.zeros(1, 32, 32, 4, dtype=torch.uint8)}, path)
        head = path.read_bytes()[:-4096].replace(b"[1,32,32,4]", b"[65536,32,32,4]").replace(b"4096]", b"268435456]")
        text = head[8:].rstrip()
        text += b" " * (-len(text) % 8)
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        os.truncate(path, 8 + len(text) + 268435456)

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    dataset = load(path, limit=60000)
    assert resident() - before < 16 * 2**20
    assert dataset.data.shape == (60000, 4, 32, 32)
    assert dataset.data.untyped_storage().nbytes() >= 268435456
    assert dataset.data[59999, 3, 31, 31] == 0


def test_npy_tensor_is_the_map_itself_and_the_file_never_changes(tmp_path, monkeypatch):
    path = tmp_path / "a.npy"
    array = pixels(6, 8, 9, 3)
    np.save(path, array)
    opened = []
    real = np.lib.format.open_memmap
    monkeypatch.setattr(
        np.lib.format, "open_memmap", lambda path, mode: opened.append(real(path, mode=mode)) or opened[-1]
    )
    data = load(path, limit=4).data
    assert isinstance(opened[0], np.memmap)
    assert data.data_ptr() == opened[0].ctypes.data
    assert opened[0].flags.writeable  # copy-on-write; without it the next line would end the process
    data[0, 0] += 1
    assert np.array_equal(np.load(path), array)


def test_npy_too_large_for_a_writable_map_is_mapped_read_only(tmp_path, monkeypatch):
    path = tmp_path / "a.npy"
    array = pixels(4, 5)
    np.save(path, array)
    modes = []
    real = np.lib.format.open_memmap

    def refuse_writable(path, mode):
        modes.append(mode)
        if mode != "r":
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return real(path, mode=mode)

    monkeypatch.setattr(np.lib.format, "open_memmap", refuse_writable)
    assert np.array_equal(load(path).data.numpy(), array)
    assert modes == ["c", "r"]


def test_fortran_order_keeps_values(tmp_path):
    array = np.asfortranarray(pixels(5, 4))
    np.save(tmp_path / "a.npy", array)
    assert np.array_equal(load(tmp_path / "a.npy").data.numpy(), array)


def test_file_sources_have_no_splits(write):
    with pytest.raises(ValueError, match=r"split: found 'test', but the file .* has no splits"):
        load(write(pixels(2, 3)), split="test")


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", b"1,2"), ("a.ckpt", b"PK\3\4"), ("a.png", b"\x89PNG"), ("a", b"?")]
)
def test_unsupported_kind_lists_what_is_allowed(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: unsupported kind of file; allowed \.npy, .*\.parquet, .*MNIST"):
        load(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match=r"pipe: expected a file, found a device, pipe or socket"):
        load(tmp_path / "pipe")
