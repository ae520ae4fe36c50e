"""torch's data sets and loaders, torchvision's, Hugging Face's: points in their order, pixels as they were."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SequentialSampler, TensorDataset

import geodiff
from geodiff import DataError
from geodiff.data import convert, load

PIXELS = torch.randint(0, 256, (21, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
PIXELS[0].flatten()[:90] = torch.arange(90, dtype=torch.uint8)
LABELS = torch.arange(21) % 4


class Points(Dataset[Any]):
    def __init__(self, items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(zip(PIXELS, LABELS, strict=True))


def pictures() -> list[Image.Image]:
    return [Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in PIXELS]


FORMS = {
    "tensors": list(zip(PIXELS, LABELS, strict=True)),
    "integers": list(zip(PIXELS, LABELS.tolist(), strict=True)),
    "three of a kind": [(pixels, label, "more") for pixels, label in zip(PIXELS, LABELS, strict=True)],
    "pictures": list(zip(pictures(), LABELS.tolist(), strict=True)),
    "arrays": list(zip((pixels.permute(1, 2, 0).numpy() for pixels in PIXELS), LABELS.numpy(), strict=True)),
    "dictionaries": [{"image": pixels, "label": int(label)} for pixels, label in zip(PIXELS, LABELS, strict=True)],
    "other names": [
        {"pixel_values": pixels, "fine_label": label} for pixels, label in zip(PIXELS, LABELS, strict=True)
    ],
    "ToTensor": [(pixels.float() / 255, label) for pixels, label in zip(PIXELS, LABELS, strict=True)],
    "Normalize": [((pixels.float() / 255 - 0.5) / 0.5, label) for pixels, label in zip(PIXELS, LABELS, strict=True)],
    "HWC tensors": [(pixels.permute(1, 2, 0), label) for pixels, label in zip(PIXELS, LABELS, strict=True)],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_item(form: str, tmp_path: Path) -> None:
    for source in (Points(FORMS[form]), DataLoader(Points(FORMS[form]), batch_size=4)):
        found = load(source)
        assert torch.equal(found.data, PIXELS)
        assert found.labels is not None
        assert torch.equal(found.labels, LABELS)
        assert ("read as uint8 again" in found.layout) == (form in ("ToTensor", "Normalize"))
    converted = convert(Points(FORMS[form]), tmp_path / "points.npy")
    assert torch.equal(converted.data, PIXELS)


def test_other_data_sets() -> None:
    assert torch.equal(load(TensorDataset(PIXELS, LABELS)).data, PIXELS)
    alone = load(Points(list(PIXELS)))
    assert torch.equal(alone.data, PIXELS)
    assert alone.labels is None
    for source in (Stream(), DataLoader(Stream())):
        found = load(source)
        assert torch.equal(found.data, PIXELS)
        assert found.labels is not None
        assert torch.equal(found.labels, LABELS)
    vectors = torch.randn(7, 5)
    assert torch.equal(load(TensorDataset(vectors)).data, vectors)


@pytest.mark.parametrize(("white", "remedy"), [(1, "2 x - 1"), (255, "x / 127.5 - 1")])
def test_floats_in_the_range_of_pixels_are_warned_about(tmp_path: Path, white: int, remedy: str) -> None:
    unit = white * torch.rand(5, 3, 6, 6)
    with pytest.warns(UserWarning, match=rf"in \[0, {white}\] are taken as they are, in model .*pass {remedy}, or"):
        assert torch.equal(load(TensorDataset(unit)).data, unit)
    np.save(tmp_path / "unit.npy", unit.numpy())
    with pytest.warns(UserWarning, match=rf"unit.npy: pictures with all values in \[0, {white}\]"):
        load(tmp_path / "unit.npy")
    load(TensorDataset(2 * unit - white))


@pytest.mark.parametrize("white", [1, 255])
def test_a_denoiser_warns_in_the_words_of_load_and_once(tmp_path: Path, white: int) -> None:
    unit = white * torch.rand(5, 1, 6, 6)
    for kind in (geodiff.OptimalDenoiser, geodiff.LocalDenoiser):
        with pytest.warns(UserWarning, match=rf"^data: pictures with all values in \[0, {white}\]") as warned:
            kind(unit.clone())
        assert [one.filename for one in warned] == [__file__]  # where the user made it
    with pytest.warns(UserWarning, match="pictures with all values in"):
        data = load(unit).data
    geodiff.OptimalDenoiser(data)  # warned about already
    np.save(tmp_path / "unit.npy", unit.numpy())
    with pytest.warns(UserWarning, match=r"^unit\.npy: pictures with all values in") as warned:
        geodiff.OptimalDenoiser(tmp_path / "unit.npy")
    assert len(warned) == 1


def test_what_is_no_picture_in_the_range_of_pixels_is_not_warned_about() -> None:
    """Latents have both signs; what is not negative but small is no 0..255; other shapes may be anything."""
    for data in (
        100 * torch.randn(5, 4, 6, 6),
        3 * torch.rand(5, 4, 6, 6),
        300 * torch.rand(5, 4, 6, 6),
        torch.zeros(5, 4, 6, 6),
        200 * torch.rand(5, 6, 6),
        PIXELS,
    ):
        geodiff.OptimalDenoiser(data)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (DataLoader(Points(PIXELS), shuffle=True), "draws by RandomSampler.*allowed shuffle=False, or the data set"),
        (DataLoader(Points(PIXELS), batch_size=4, drop_last=True), "drop_last, which loses points of N = 21"),
        (DataLoader(Points(PIXELS), collate_fn=len), "collate_fn of its own"),
        (
            DataLoader(Points(PIXELS), batch_sampler=BatchSampler(SequentialSampler(PIXELS), 4, True)),
            "drop_last, which loses points of N = 21",
        ),
        (DataLoader(Points(PIXELS), sampler=SequentialSampler(range(3))), "draws by SequentialSampler"),
        (DataLoader(Stream(), num_workers=2), "num_workers=2, where order depends on the workers"),
    ],
)
def test_loaders_that_are_not_the_data_set(source: DataLoader[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(source)


def test_a_random_transform_is_refused() -> None:
    class Flipped(Points):
        def __getitem__(self, index: int) -> Tensor:
            return self.items[index].flip(-1) if torch.rand(()) < 0.5 else self.items[index]

    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"is another point each time it is read.*allowed .* augment='hflip'"):
        load(Flipped(PIXELS))


def test_streams_that_are_another_each_time_are_refused() -> None:
    class Shuffled(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(PIXELS[torch.randperm(21)])

    class Once(IterableDataset[Any]):
        def __init__(self) -> None:
            self.left = iter(PIXELS)

        def __iter__(self) -> Iterator[Any]:
            return self.left

    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"item 0 is another point each time it is read.*an order that is drawn"):
        load(Shuffled())
    with pytest.raises(ValueError, match=r"another point each time|when it is read again"):
        load(Once())


def test_not_a_number_is_the_same_when_it_is_read_again() -> None:
    assert load(TensorDataset(torch.full((3, 2), torch.nan))).data.isnan().all()


def test_points_of_a_computation_lose_their_history() -> None:
    assert not load(Points([torch.randn(3, requires_grad=True) for _ in range(2)])).data.requires_grad


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([PIXELS[0], PIXELS[0, :, :4]], r"Points\[1\]: size: found 3x4x6, expected 3x6x6"),
        ([(PIXELS[0], 1), PIXELS[1]], r"Points\[1\]: label: found none, expected an integer"),
        ([(PIXELS[0], 0.5)], r"label: expected an integer, found float 0.5"),
        ([{"picture": PIXELS[0]}], r"keys: found \['picture'\]; expected one of image, img"),
        (["a.png"], "expected a tensor, array or picture, found str"),
        ([pictures()[0].convert("CMYK")], "pixel mode: found CMYK; allowed L, RGB, or mode="),
        ([pictures()[0].convert("I;16")], "pixel mode: found I;16"),
        ([PIXELS[0].double()], "dtype: found float64; allowed uint8"),
        (
            [torch.eye(3).to_sparse()],
            r"Points\[0\]: expected a dense tensor, found torch.sparse_coo; allowed x.to",
        ),
        ([(PIXELS[0], 2**64)], r"Points\[0\]: label: found 18446744073709551616, allowed what int64 holds"),
    ],
)
def test_items_that_do_not_fit(items: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(Points(items))


def test_a_data_set_that_fails_is_named() -> None:
    class Longer(Points):
        def __len__(self) -> int:
            return 3

    with pytest.raises(DataError, match=r"Longer\[2\]: reading it failed \(IndexError: list index out of range\)"):
        load(Longer([PIXELS[0], PIXELS[1]]))


def test_an_empty_data_set() -> None:
    with pytest.raises(DataError, match="expected points, found none"):
        load(Points([]))


def made(kind: type, **attributes: Any) -> Any:
    """A data set of torchvision as its constructor leaves it, without the files that it would fetch."""
    found = object.__new__(kind)
    found.__dict__.update({"transform": None, "target_transform": None, "transforms": None, **attributes})
    return found


HWC = PIXELS.permute(0, 2, 3, 1).numpy()


def test_torchvision_by_class(vision: ModuleType) -> None:
    for name, attributes, expected in (
        ("CIFAR10", {"data": HWC, "targets": LABELS.tolist()}, PIXELS),
        ("CIFAR100", {"data": HWC, "targets": LABELS.tolist()}, PIXELS),
        ("SVHN", {"data": PIXELS.numpy(), "labels": LABELS.numpy()}, PIXELS),
        ("STL10", {"data": PIXELS.numpy(), "labels": LABELS.numpy()}, PIXELS),
        ("MNIST", {"data": PIXELS[:, 0], "targets": LABELS}, PIXELS[:, :1]),
        ("FashionMNIST", {"data": PIXELS[:, 0], "targets": LABELS}, PIXELS[:, :1]),
        ("QMNIST", {"data": PIXELS[:, 0], "targets": torch.stack([LABELS] * 8, 1)}, PIXELS[:, :1]),
        ("EMNIST", {"data": PIXELS[:, 0], "targets": LABELS}, PIXELS[:, :1]),
    ):
        found = load(made(getattr(vision, name), **attributes))
        assert torch.equal(found.data, expected), name
        assert found.labels is not None
        assert torch.equal(found.labels, LABELS), name
        assert ("transposed" in found.layout) == (name == "EMNIST")
    assert load(made(vision.STL10, data=PIXELS.numpy(), labels=-np.ones(21, int))).labels is None
    # 32 rows of 3: the class says which axis is which, where shapes do not
    ambiguous = np.zeros((2, 3, 32, 3), np.uint8)
    assert load(made(vision.SVHN, data=ambiguous, labels=np.zeros(2, int))).data.shape == (2, 3, 32, 3)


def test_torchvision_with_a_transform_is_read_item_by_item(vision: ModuleType) -> None:
    source = made(vision.CIFAR10, data=HWC, targets=LABELS.tolist(), train=True)
    source.transform = lambda picture: torch.from_numpy(np.array(picture.resize((3, 3)))).permute(2, 0, 1)
    assert load(source).data.shape == (21, 3, 3, 3)


def test_torchvision_folder(tmp_path: Path, vision: ModuleType) -> None:
    for index, picture in enumerate(pictures()[:6]):
        (tmp_path / "ab"[index % 2]).mkdir(exist_ok=True)
        picture.save(tmp_path / "ab"[index % 2] / f"{index}.png")
    found = load(vision.ImageFolder(str(tmp_path)))
    assert torch.equal(found.data, PIXELS[[0, 2, 4, 1, 3, 5]])
    assert found.labels is not None
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.classes == ("a", "b")


def test_hugging_face_objects(hugging_face: ModuleType) -> None:
    features = hugging_face.Features(
        {"img": hugging_face.Image(), "label": hugging_face.ClassLabel(names=["a", "b", "c", "d"])}
    )
    whole = hugging_face.Dataset.from_dict({"img": pictures(), "label": LABELS.tolist()}, features=features)
    for source in (whole, whole.with_format("torch")):
        found = load(source)
        assert torch.equal(found.data, PIXELS)
        assert found.labels is not None
        assert torch.equal(found.labels, LABELS)
        assert found.classes == ("a", "b", "c", "d")
    assert torch.equal(load(whole.to_iterable_dataset()).data, PIXELS)


def test_splits_of_hugging_face_are_to_be_chosen(hugging_face: ModuleType, tmp_path: Path) -> None:
    whole = hugging_face.Dataset.from_dict({"x": PIXELS.flatten(1).float().tolist(), "label": LABELS.tolist()})
    splits = hugging_face.DatasetDict({"test": whole, "train": whole})
    for split in ("train", "test"):
        with pytest.raises(
            ValueError, match=r"source: .*DatasetDict with the splits 'test', 'train'; .*source\['train'\]"
        ):
            load(splits, split=split)
    splits.pop("train")
    with pytest.raises(ValueError, match=r"the splits 'test'; allowed one of them: source\['test'\]"):
        load(splits)
    splits.save_to_disk(tmp_path / "splits")
    with pytest.raises(
        DataError, match=r"splits: a folder of save_to_disk, .*pass datasets.load_from_disk\(.*\)\['test'\]"
    ):
        load(tmp_path / "splits")
    whole.save_to_disk(tmp_path / "whole")
    with pytest.raises(DataError, match=r"whole: a folder of save_to_disk, .*load_from_disk\(.*whole'\), or a file of"):
        load(tmp_path / "whole", split="test")


def test_a_denoiser_over_it() -> None:
    dataset = load(Points(FORMS["ToTensor"]))
    x = torch.randn(2, 3, 6, 6)
    expected = geodiff.OptimalDenoiser(PIXELS)(x, 0.5)
    assert torch.equal(geodiff.OptimalDenoiser(dataset.data, labels=dataset.labels)(x, 0.5), expected)
