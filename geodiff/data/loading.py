"""load(): one door for every kind of source."""

import operator
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from torch import Tensor

from geodiff.base.array_like import as_tensor
from geodiff.base.errors import DataError
from geodiff.data import (
    array_shards,
    arrays,
    cifar,
    edm,
    float_pixels,
    hugging_face,
    idx,
    imagenet,
    images,
    items,
    parquet,
    torch_files,
    torchvision,
    webdataset,
)
from geodiff.data.builtin import BUILTIN
from geodiff.data.dataset import Contents, Dataset
from geodiff.data.decoding import check_file
from geodiff.data.digest import digest
from geodiff.data.folders import beside, class_folders
from geodiff.data.layout import LAYOUTS, arrange, arrange_images
from geodiff.data.pixels import MODES
from geodiff.data.stream import Stream

BUILTIN_NAMES = tuple(BUILTIN)
SPLITS = ("train", "test")
_SPLIT_FOLDERS = frozenset({*SPLITS, "val", "valid", "validation"})
_PACKED = (".tgz", ".tar.gz", ".tar.xz", ".tar.bz2", ".tar.zst")
#: Files of several arrays, of which one has the points: read by its name, or by what it is usually called.
_BY_NAMES: dict[str, Callable[[Path, str | None], Contents]] = {
    ".npz": arrays.read_npz,
    ".safetensors": arrays.read_safetensors,
    ".pt": torch_files.read_saved,
    ".pth": torch_files.read_saved,
}


def load(
    source: Any,
    *,
    layout: str = "auto",
    split: str = "train",
    limit: int | None = None,
    mode: str | None = None,
    key: str | None = None,
) -> Dataset:
    """source -> data points x_i, [N, *shape] in the dtype they are stored in, never converted to float.

    source: one of
        a Tensor or ndarray [N, *shape], viewed and otherwise taken as it is;
        a built-in name: "digits" [1797, 1, 8, 8], "mnist5k" [5000, 1, 28, 28] (a file of that name: write "./digits");
        a .npy file (memory-mapped; labels in NAME_labels.npy beside it are taken along);
        a .npz or .safetensors file, or a .pt or .pth of torch.save, which may be a tensor (data under `key`, or `data`,
        `images`, `x` or `arr_0`; labels, if any, under `labels` or `y`);
        a folder of data-00000-of-00012.npy, ... (labels in labels-00000-of-00012.npy, ...), read into memory;
        MNIST-style IDX files, plain or .gz: the image file (labels found beside it), or the folder of them;
        CIFAR-10 or CIFAR-100 python batches: one batch, or the folder (CIFAR-100: fine labels);
        a folder of images of one size (subfolders are classes, empty ones too, the same in every split; train/ and
        test/ inside are splits; links are followed, EXIF orientation too);
        a zip or folder of EDM, EDM2 or StyleGAN (dataset.json), EDM2's latents among them: their scaled means;
        batches of the downsampled ImageNet (train_data_batch_1.npz, or pickled), one or the folder of them;
        parquet files of Hugging Face, one or the folder; WebDataset tars, one, or shards as "name-{000..146}.tar";
        a data set of torchvision or Hugging Face, any torch Dataset, or a DataLoader that neither shuffles nor drops.
    layout: "auto", "chw", "hwc" or "flat" (arrays as they are, images as [N, d]). "auto" leaves a Tensor or ndarray
        alone; in files, four axes with the last 1, 3 or 4 and the second not are HWC, viewed (not copied) as
        [N, C, H, W], all other four axes are CHW, and uint8 [N, H, W] becomes [N, 1, H, W]. Dataset.layout says what
        was done.
    split: "train" or "test", for sources that have both.
    limit: keep the first `limit` points, as a view; None, or more than there are, keeps all.
    mode: "L" or "RGB": what pictures become where they are decoded here (folders of images, EDM, parquet, WebDataset,
        items of PIL), and refused elsewhere. None takes grey and RGB as they are and refuses others; a folder of images
        then becomes the least of grey, RGB and RGBA that holds them all.
    key: the name of the points in a .npz, .safetensors or .pt; refused for other sources. Arrays of other names are
        then left out without a warning.

    Raises DataError (a damaged, truncated, empty or unsuitable file, by name and reason), FileNotFoundError, ValueError
    (an argument outside what is allowed, an unknown name), TypeError (a source of another type), and ImportError (a
    package of the extra `data` is missing). NaN and Inf are left for the denoiser to find. Warns of files and
    arrays in the source that are not read; Dataset.left_out names them.
    """
    _check_choice("layout", layout, LAYOUTS)
    _check_choice("split", split, SPLITS)
    if mode is not None:
        _check_choice("mode", mode, MODES)
    limit = _check_limit(limit)
    stream = open_piecewise(source, split, mode, key)
    contents, name = _open(source, split, limit, mode, key) if stream is None else (stream.contents(limit), stream.name)
    if contents.data.ndim == 0:
        raise ValueError("source: expected [N, *shape], found a single number; allowed 1 dimension or more")
    if layout == "auto" and isinstance(source, Tensor | np.ndarray):
        data, understood = contents.data, "as given"
    else:
        data, understood = (arrange_images if contents.is_chw else arrange)(contents.data, layout)
    labels, vectors = (None if one is None else one[:limit] for one in (contents.labels, contents.vectors))
    if contents.note:
        understood = f"{understood}; {contents.note}"
    data = data[:limit]
    if not contents.latent:
        float_pixels.warn_of_pixel_range(data, name, stacklevel=3)
    if contents.left_out and key is None:
        warnings.warn(_left_out(contents.left_out, source), stacklevel=2)
    return Dataset(data, labels, name, understood, contents.classes, contents.left_out, vectors, contents.latent)


def load_latents(source: str | os.PathLike[str], *, limit: int | None = None) -> tuple[Dataset, Tensor]:
    """EDM2's latents as the mixture that they are: x_0 ~ sum_i N(m_i, diag s_i^2) / N. The means, and s [N, 4, h, w].

    source: a zip or folder of .npy latents. `geodiff.MixtureDenoiser(data, s)` is the optimal denoiser of it.
    Raises DataError for a source without standard deviations, and as `load` does.
    """
    found = load(source, limit=limit)
    if not found.latent:
        raise DataError(_existing(source), "expected latents of EDM2, float32 [8, h, w] each; found other points")
    return found, edm.deviations(_existing(source), _check_limit(limit))


def open_stream(source: Any, split: str = "train", mode: str | None = None, key: str | None = None) -> Stream:
    """Any source of `load` piece by piece: decoded as it comes, or a view of what is mapped or read at once."""
    _check_choice("split", split, SPLITS)
    if mode is not None:
        _check_choice("mode", mode, MODES)
    found = open_piecewise(source, split, mode, key)
    if found is not None:
        return found
    contents, name = _open(source, split, None, mode, key)
    if not isinstance(source, Tensor | np.ndarray):
        data, _ = (arrange_images if contents.is_chw else arrange)(contents.data, "auto")
        contents = contents._replace(data=data)
    kept = contents.data
    return Stream.of(contents, name, lambda: f"{name} {digest(kept)}")


def open_piecewise(source: Any, split: str, mode: str | None, key: str | None = None) -> Stream | None:
    """The stream of a source whose format is read piece by piece; None for others, which are mapped or read whole."""
    found = _open_piecewise(source, split, mode)
    if found is not None:
        _check_no_key(key, found.name)
    return found


def _open_piecewise(source: Any, split: str, mode: str | None) -> Stream | None:
    if torchvision.is_source(source):
        _check_no_splits(split, "a data set of torchvision")
        return torchvision.open_stream(source)
    if items.is_source(source):
        hugging_face.check_one_split(source)
        _check_no_splits(split, "an object")
        return items.open_stream(source, mode)
    if not isinstance(source, str | os.PathLike) or source in BUILTIN:
        return None
    if isinstance(source, str) and "{" in source and not Path(source).exists():
        return webdataset.open_stream(webdataset.expand(source), mode)
    path = _existing(source)
    if path.is_dir():
        return _open_folder(path, split, mode)
    if path.suffix.lower() not in (".zip", ".parquet", ".tar") and not imagenet.matches(path):
        return None
    _check_no_splits(split, f"the file {path}")
    check_file(path)
    if path.suffix.lower() == ".zip":
        return edm.open_stream(path, mode)
    if path.suffix.lower() == ".parquet":
        return parquet.open_stream([path], mode)
    return imagenet.open_stream([path]) if imagenet.matches(path) else webdataset.open_stream([path], mode)


def _open_folder(folder: Path, split: str, mode: str | None) -> Stream | None:
    hugging_face.check_not_saved(folder)
    if _holds_splits(folder) and edm.matches(folder / split):
        return edm.open_stream(folder / split, mode)
    if edm.matches(folder):
        _check_no_splits(split, f"the folder {folder}")
        return edm.open_stream(folder, mode)
    if batches := imagenet.find_batches(folder, split):
        return imagenet.open_stream(batches)
    if shards := parquet.find_shards(folder, split):
        return parquet.open_stream(shards, mode)
    if parts := array_shards.find_shards(folder):
        _check_no_splits(split, f"the folder {folder}")
        return array_shards.open_stream(parts)
    if tars := sorted(folder.glob("*.tar")):
        _check_no_splits(split, f"the folder {folder}")
        return webdataset.open_stream(tars, mode)
    return None


def _left_out(names: tuple[str, ...], source: object) -> str:
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{source}: {len(names)} left out, neither data nor labels of a kind that is read: {shown}"


def _open(source: Any, split: str, limit: int | None, mode: str | None, key: str | None) -> tuple[Contents, str]:
    """The contents of a source and its name; `limit` only saves reading files that the cut would drop."""
    if isinstance(source, Tensor | np.ndarray):
        _check_no_splits(split, "a Tensor or ndarray")
        _check_no_pictures(mode, "a Tensor or ndarray")
        _check_no_key(key, "a Tensor or ndarray")
        return Contents(as_tensor(source, "source")), "tensor" if isinstance(source, Tensor) else "array"
    if isinstance(source, str) and source in BUILTIN:
        _check_no_splits(split, repr(source))
        _check_no_pictures(mode, repr(source))
        _check_no_key(key, repr(source))
        return BUILTIN[source](), source
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            f"source: expected a Tensor, ndarray, path, built-in name or torch Dataset, found {type(source).__name__}"
        )
    path = _existing(source)
    name = Path(os.path.abspath(path)).name  # of "." too, which Path(".").name leaves empty
    if path.is_dir():
        _check_no_key(key, f"the folder {path}")
        return _read_folder(path, split, limit, mode), name
    _check_no_splits(split, f"the file {path}")
    _check_no_pictures(mode, f"the file {path}")
    return _read_file(path, key), name


def _existing(source: str | os.PathLike[str]) -> Path:
    text = os.fspath(source)
    path = Path(text).expanduser()
    if text and path.exists():
        return path
    if isinstance(source, str) and path.name == text and not path.suffix:
        known = ", ".join(map(repr, BUILTIN))
        raise ValueError(f"source: {text!r} is no built-in name (allowed {known}), nor a file or folder")
    raise FileNotFoundError(f"source: no such file or folder: {text!r}")


def _read_file(path: Path, key: str | None) -> Contents:
    check_file(path)
    if path.name.lower().endswith(_PACKED):
        raise DataError(
            path,
            "a compressed archive; unpack it (tar -xf) and pass the folder, or a plain .tar if it is a WebDataset's",
        )
    if reader := _BY_NAMES.get(path.suffix.lower()):
        return reader(path, key)
    _check_no_key(key, f"the file {path}")
    if path.suffix.lower() == ".npy":
        return arrays.read_npy(path)
    with path.open("rb") as file:
        head = file.read(4)
    if idx.matches(path, head):
        return idx.read_idx(path)
    if cifar.matches(path, head):
        return cifar.read_batches([path], None)
    others = ("zips of EDM", ".parquet", ".tar", "MNIST IDX(.gz)", "CIFAR python batches", "folders of images")
    kinds = ", ".join((".npy", *_BY_NAMES, *others))
    raise DataError(path, f"unsupported kind of file; allowed {kinds}")


def _read_folder(folder: Path, split: str, limit: int | None, mode: str | None) -> Contents:
    if batches := cifar.find_batches(folder, split):
        _check_no_pictures(mode, f"the folder {folder}")
        return cifar.read_batches(batches, limit)
    if file := idx.find_images(folder, split):
        _check_no_pictures(mode, f"the folder {folder}")
        return idx.read_idx(file)
    if _holds_splits(folder):
        inside = set(class_folders(folder))
        if split not in inside:
            raise FileNotFoundError(f"{folder}: no folder {split!r} inside for split={split!r}; found {sorted(inside)}")
        classes = sorted({name for one in inside for name in class_folders(folder / one)})
        contents = images.read_folder(folder / split, limit, classes, mode)
        return contents._replace(left_out=(*beside(folder), *contents.left_out))
    _check_no_splits(split, f"the folder {folder}")
    return images.read_folder(folder, limit, mode=mode)


def _holds_splits(folder: Path) -> bool:
    """Whether a folder has nothing but splits inside: "train" is also a class name in data sets of vehicles."""
    inside = set(class_folders(folder))
    return bool(inside & set(SPLITS)) and inside <= _SPLIT_FOLDERS


def _check_choice(argument: str, found: str, allowed: tuple[str, ...]) -> None:
    if found not in allowed:
        raise ValueError(f"{argument}: found {found!r}; allowed {', '.join(map(repr, allowed))}")


def _check_no_splits(split: str, what: str) -> None:
    if split != SPLITS[0]:
        raise ValueError(f"split: found {split!r}, but {what} has no splits; allowed {SPLITS[0]!r}, the default")


def _check_no_pictures(mode: str | None, what: str) -> None:
    if mode is not None:
        raise ValueError(f"mode: found {mode!r}, but {what} holds arrays, which are taken as they are; allowed None")


def _check_no_key(key: str | None, what: str) -> None:
    if key is not None:
        raise ValueError(
            f"key: found {key!r}, but {what} is no file of arrays with names; allowed None, or {', '.join(_BY_NAMES)}"
        )


def _check_limit(limit: SupportsIndex | None) -> int | None:
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, SupportsIndex):
        raise TypeError(f"limit: expected an integer or None, found {type(limit).__name__}")
    count = operator.index(limit)
    if count < 1:
        raise ValueError(f"limit: expected at least 1 point, found {count}; None keeps all")
    return count
