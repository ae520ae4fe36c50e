"""Parquet files as the library datasets writes them: found by their features, in the order of their shards."""

import io
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from geodiff import DataError
from geodiff.data import convert, load

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
LABELS = [2, 0, 1, 1, 0, 2]


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def column(first: int = 0, last: int = 6) -> list[dict[str, object]]:
    return [{"bytes": png(pixels), "path": None} for pixels in PIXELS[first:last]]


def test_a_file_of_the_library_itself(tmp_path: Path, hugging_face: ModuleType) -> None:
    """With the names that CIFAR-10 has there: img and label, classes in the metadata."""
    features = hugging_face.Features(
        {"label": hugging_face.ClassLabel(names=["a", "b", "c"]), "img": hugging_face.Image()}
    )
    rows = {"img": [Image.fromarray(pixels) for pixels in PIXELS], "label": LABELS}
    hugging_face.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train-00000-of-00001.parquet")
    for source in (tmp_path, tmp_path / "train-00000-of-00001.parquet"):
        found = load(source)
        assert np.array_equal(found.data.numpy(), PIXELS.transpose(0, 3, 1, 2))
        assert found.labels is not None
        assert found.labels.tolist() == LABELS
        assert found.classes == ("a", "b", "c")


def test_shards_by_number_and_splits_by_name(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for shard, (first, last) in enumerate(((0, 2), (2, 3), (3, 6))):
        table = pyarrow.table({"image": column(first, last), "label": LABELS[first:last]})
        parquet.write_table(table, tmp_path / "data" / f"train-{shard:05d}-of-00003.parquet", row_group_size=2)
    unknown = pyarrow.table({"image": column(0, 2), "label": [-1, -1]})
    parquet.write_table(unknown, tmp_path / "data" / "test-00000-of-00001.parquet")
    found = load(tmp_path)
    assert np.array_equal(found.data.numpy(), PIXELS.transpose(0, 3, 1, 2))
    assert found.labels is not None
    assert found.labels.tolist() == LABELS
    assert load(tmp_path, split="test").labels is None
    converted = convert(tmp_path, tmp_path / "all.npy")
    assert np.array_equal(converted.data.numpy(), PIXELS.transpose(0, 3, 1, 2))
    (tmp_path / "data" / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(DataError, match=r"train-00001-of-00003.parquet: missing: train-00000-of-00003.parquet beside"):
        load(tmp_path)


def test_bytes_alone_as_older_files_hold_them(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"image": [png(PIXELS[0])], "label": [5]}), tmp_path / "a.parquet")
    assert np.array_equal(load(tmp_path / "a.parquet").data[0].numpy(), PIXELS[0].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [{"bytes": None, "path": "a.png"}]}, "row 0: image: .* only the path 'a.png'"),
        ({"image": [{"bytes": b"nothing", "path": None}]}, "row 0: damaged, truncated or not a picture"),
        ({"image": column(0, 1), "label": ["cat"]}, "row 0: label: expected an integer, found str"),
        ({"text": ["a"]}, r"columns: found \['text'\]; expected an image under one of image, img"),
        ({"image": [*column(0, 1), {"bytes": png(PIXELS[1, :4]), "path": None}]}, "row 1: size: found 3x4x8"),
        ({"image": column(0, 2), "label": [1, None]}, "row 1: label: found none, expected an integer"),
    ],
)
def test_damages(tmp_path: Path, columns: dict[str, list[object]], message: str) -> None:
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=rf"a.parquet.*{message}"):
        load(tmp_path / "a.parquet")


def described(names: list[str]) -> dict[bytes, bytes]:
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def test_labels_are_those_of_the_classes_that_the_files_name(tmp_path: Path) -> None:
    """0 is a in one file and b in the other: joined, they would be another data set."""
    table = pyarrow.table({"image": column(0, 2), "label": [0, 1]})
    for shard, names in enumerate((["a", "b"], ["b", "a"])):
        path = tmp_path / f"train-{shard:05d}-of-00002.parquet"
        parquet.write_table(table.replace_schema_metadata(described(names)), path)
    with pytest.raises(
        DataError,
        match=r"train-00001.*: columns: found image, label of classes b, a, expected .* of classes a",
    ):
        load(tmp_path)
    parquet.write_table(pyarrow.table({"text": ["a"]}), path)
    with pytest.raises(DataError, match=r"train-00001.*: columns: found \['text'\]; expected an image"):
        load(tmp_path)
    beyond = pyarrow.table({"image": column(0, 2), "label": [0, 2]}).replace_schema_metadata(described(["a", "b"]))
    parquet.write_table(beyond, tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b.parquet: row 1: label: found 2, expected one of the 2 classes"):
        load(tmp_path / "b.parquet")
    large = pyarrow.table({"image": column(0, 1), "label": pyarrow.array([2**63], pyarrow.uint64())})
    parquet.write_table(large, tmp_path / "c.parquet")
    with pytest.raises(DataError, match=r"c.parquet: row 0: label: found 9223372036854775808, allowed what int64"):
        load(tmp_path / "c.parquet")


def test_truncated(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"image": column(), "label": LABELS}), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"a.parquet: damaged, truncated or not a parquet file"):
        load(path)
