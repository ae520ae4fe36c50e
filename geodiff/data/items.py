"""Objects that hold points one by one: torch's datasets and loaders, Hugging Face's, and anything that can be iterated.

Each item is a point; (point, label, ...); or a dict with a point under one of IMAGE_KEYS and a label, if any, under one
of LABEL_KEYS. A pass over such an object must be the data set itself, in its order: what shuffles, drops or transforms
at random is refused.
"""

import hashlib
import inspect
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import data as torch_data

from geodiff.base.errors import DataError
from geodiff.data import float_pixels
from geodiff.data.dataset import Contents
from geodiff.data.digest import digest
from geodiff.data.pixels import of_array, of_picture
from geodiff.data.stream import Item, Stream, stacked

IMAGE_KEYS = ("image", "img", "pixel_values", "x", "data")
LABEL_KEYS = ("label", "labels", "fine_label", "y", "cls", "target")
#: How many points are read twice, to see whether reading is random.
_TWICE = 16


def is_source(source: object) -> bool:
    """Whether it is an object that `open_stream` reads."""
    return isinstance(source, torch_data.Dataset | torch_data.DataLoader) or _is_hugging_face(source)


def open_stream(source: Any, mode: str | None = None) -> Stream:
    """Its points in order. Pixels that ToTensor, or Normalize(0.5, 0.5) after it, made floats of are uint8 again.

    Raises ValueError where its order or its points are not those of the data, DataError that names the item.
    """
    if isinstance(source, torch_data.DataLoader):
        source = _behind(source)
    name = f"{type(source).__module__}.{type(source).__qualname__}"
    mapped = hasattr(source, "__getitem__") and hasattr(source, "__len__")
    count = len(source) if mapped else None
    seen = _check_repeats(name, *(_chosen(source, name, mode) if mapped else _first(source, name, mode) for _ in "ab"))

    def items(first: int) -> Iterator[Item]:
        if mapped:
            for index in range(first, len(source)):
                yield _at(source, index, name, mode)
            return
        for index, value in enumerate(source):
            if index >= first:
                yield _item(value, f"{name}, item {index}", mode)

    like = Contents(torch.empty(0, device="cpu"), classes=classes_of(source))

    def read(first: int) -> Iterator[Contents]:
        return float_pixels.recognised(stacked(items(first), like), name)

    return Stream(name, lambda: f"{name} {count} {mode} {seen}", read, count)


def _behind(loader: "torch_data.DataLoader[Any]") -> Any:
    """The data set of a loader that passes over it once, in order, item by item."""
    dataset = loader.dataset
    if isinstance(dataset, torch_data.IterableDataset):
        if loader.num_workers > 1:
            raise ValueError(
                f"source: a DataLoader of an IterableDataset with num_workers={loader.num_workers}, where order "
                f"depends on the workers and points may come from each; allowed num_workers=0, or the data set itself"
            )
        return dataset
    batches = loader.batch_sampler
    sampler: object = loader.sampler if batches is None else getattr(batches, "sampler", None)
    if not isinstance(sampler, torch_data.SequentialSampler) or len(sampler) != len(dataset):  # type: ignore[arg-type]
        raise ValueError(
            f"source: a DataLoader that draws by {type(sampler).__name__}, so that indices and labels of another pass "
            f"would not fit; allowed shuffle=False, or the data set itself (loader.dataset)"
        )
    if loader.collate_fn is not torch_data.default_collate and loader.batch_size is not None:
        raise ValueError(
            "source: a DataLoader with a collate_fn of its own, which changes what an item is; allowed the default, or "
            "the data set itself (loader.dataset)"
        )
    size = getattr(batches, "batch_size", None)
    if getattr(batches, "drop_last", False) and size and len(dataset) % size:  # type: ignore[arg-type]
        raise ValueError(
            f"source: a DataLoader with drop_last, which loses points of N = {len(dataset)}; "  # type: ignore[arg-type]
            f"allowed drop_last=False, or the data set itself (loader.dataset)"
        )
    return dataset


def _chosen(source: Any, name: str, mode: str | None) -> Iterator[Item]:
    """A few points, from all over."""
    for index in np.linspace(0, len(source) - 1, min(len(source), _TWICE)).round().astype(int).tolist():
        yield _at(source, index, name, mode)


def _first(source: Any, name: str, mode: str | None) -> Iterator[Item]:
    """A few points of what has no other order than its own."""
    for index, value in enumerate(itertools.islice(source, _TWICE)):
        yield _item(value, f"{name}, item {index}", mode)


def _check_repeats(name: str, one: Iterator[Item], two: Iterator[Item]) -> str:
    """A digest of a few points; ValueError if reading them twice gives two answers."""
    found = hashlib.sha256()
    firsts = list(one)  # all of one pass before the other: an iterator may be the same each time
    for first, second in itertools.zip_longest(firsts, two):
        if second is None:
            raise ValueError(
                f"source: {name} has no {first.where} when it is read again; allowed what can be read more than once"
            )
        if first is None or not _same(first.point, second.point) or first.label != second.label:
            raise ValueError(
                f"source: {second.where} is another point each time it is read, as with random flips or crops, or an "
                f"order that is drawn; allowed a data set without random transforms (mirror images: augment='hflip')"
            )
        found.update(digest(first.point[None]).encode())
    return found.hexdigest()


def _same(one: Tensor, two: Tensor) -> bool:
    return (one.shape, one.dtype) == (two.shape, two.dtype) and torch.allclose(one, two, 0, 0, equal_nan=True)


def _at(source: Any, index: int, name: str, mode: str | None) -> Item:
    where = f"{name}[{index}]"
    try:
        value = source[index]
    except Exception as error:  # of code that is not ours, for a file of its own as a rule
        raise DataError(where, f"reading it failed ({type(error).__name__}: {error})") from error
    return _item(value, where, mode)


def _item(value: Any, where: str, mode: str | None) -> Item:
    point, label = _parts(value, where)
    if not isinstance(point, Tensor | np.ndarray):
        if not hasattr(point, "mode") or not hasattr(point, "convert"):
            raise DataError(where, f"expected a tensor, array or picture, found {type(point).__name__}")
        return Item(of_picture(point, where, mode), _number(label, where), where)
    found = of_array(point)
    if found.layout != torch.strided:
        raise DataError(where, f"expected a dense tensor, found {found.layout}; allowed x.to_dense()")
    return Item(found.detach(), _number(label, where), where)


def _parts(value: Any, where: str) -> tuple[Any, Any]:
    if isinstance(value, Mapping):
        key = next((key for key in IMAGE_KEYS if key in value), None)
        if key is None:
            raise DataError(where, f"keys: found {sorted(map(str, value))}; expected one of {', '.join(IMAGE_KEYS)}")
        return value[key], next((value[name] for name in LABEL_KEYS if name in value), None)
    if isinstance(value, tuple | list):
        if not value:
            raise DataError(where, "expected a point, or (point, label, ...), found nothing")
        return value[0], value[1] if len(value) > 1 else None
    return value, None


def _number(label: Any, where: str) -> int | None:
    if label is None or (isinstance(label, int) and not isinstance(label, bool)):
        return label
    whole = isinstance(label, Tensor | np.ndarray | np.generic) and np.asarray(label).size == 1
    if whole and np.asarray(label).dtype.kind in "iu":
        return int(label)
    raise DataError(where, f"label: expected an integer, found {type(label).__name__} {label!r:.40}")


def classes_of(source: Any) -> tuple[str, ...]:
    """The names of classes, as torchvision's and Hugging Face's data sets tell them."""
    if _is_hugging_face(source):
        features = getattr(source, "features", None) or {}
        names = next((getattr(features[key], "names", None) for key in LABEL_KEYS if key in features), None)
    else:
        names = getattr(source, "classes", None)
    texts = isinstance(names, Iterable) and not isinstance(names, str) and all(isinstance(one, str) for one in names)
    return tuple(names) if texts and names else ()


def _is_hugging_face(source: object) -> bool:
    return not inspect.isclass(source) and type(source).__module__.partition(".")[0] == "datasets"
