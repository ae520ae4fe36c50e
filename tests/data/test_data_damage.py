"""Files of every format with bytes cut, changed, lost or doubled: refused by name, or read with every point there."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from geodiff import DataError
from geodiff.data import Dataset, load
from tests.data import test_data_edm as edm
from tests.data import test_data_imagenet as imagenet
from tests.data import test_data_webdataset as webdataset


def edm_zip(folder: Path) -> Path:
    listed = [list(pair) for pair in zip(edm.NAMES, edm.LABELS, strict=True)]
    return edm.write(folder / "set.zip", edm.pictures(), listed)


def latent_zip(folder: Path) -> Path:
    members = {f"00000/img{index:08d}.npy": edm.npy(array) for index, array in enumerate(edm.raw_latents())}
    return edm.write(folder / "latents.zip", members, [[name, 1] for name in members])


def tar(folder: Path) -> Path:
    members = [
        (f"{i}.{field}", content)
        for i, pixels in enumerate(webdataset.PIXELS)
        for field, content in (("png", webdataset.png(pixels)), ("cls", b"1"))
    ]
    return webdataset.write(folder / "set.tar", members)


def batch_npz(folder: Path) -> Path:
    imagenet.write(folder / "train_data_batch_1.npz", imagenet.batch(0))
    return folder / "train_data_batch_1.npz"


def batch_pickle(folder: Path) -> Path:
    imagenet.write(folder / "train_data_batch_1", imagenet.batch(0))
    return folder / "train_data_batch_1"


def parquet(folder: Path) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet as written

    images = [{"bytes": edm.png(pixels), "path": None} for pixels in edm.PIXELS]
    written.write_table(pyarrow.table({"image": images, "label": edm.LABELS}), folder / "a.parquet", row_group_size=2)
    return folder / "a.parquet"


def npz(folder: Path) -> Path:
    np.savez(folder / "set.npz", data=edm.PIXELS, labels=np.array(edm.LABELS))
    return folder / "set.npz"


def saved(folder: Path) -> Path:
    torch.save({"data": torch.from_numpy(edm.PIXELS), "labels": torch.tensor(edm.LABELS)}, folder / "set.pt")
    return folder / "set.pt"


def npy(folder: Path) -> Path:
    np.save(folder / "set.npy", edm.PIXELS)
    return folder / "set.npy"


def damaged(content: bytes, draw: random.Random) -> bytes:
    at, length = draw.randrange(len(content)), draw.choice((1, 4, 64, 512))
    kind = draw.choice(("cut", "bit", "bit", "zeros", "twice", "large"))
    if kind == "cut":
        return content[:at]
    if kind == "bit":
        return content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :]
    if kind == "twice":
        return content[: at + length] + content[at:]
    other = bytes(length) if kind == "zeros" else b"\xff\xff\xff\x7f"
    return content[:at] + other[: len(content) - at] + content[at + len(other) :]


def read(path: Path) -> Dataset | None:
    """What is read; None where it is refused, by name."""
    try:
        return load(path)
    except DataError as error:
        message = str(error)
    assert path.name in message
    return None


@pytest.mark.filterwarnings("ignore:.*left out:UserWarning")
@pytest.mark.parametrize("made", [edm_zip, latent_zip, tar, batch_npz, batch_pickle, parquet, npz, saved, npy])
def test_no_point_or_label_goes_missing_without_a_word(made: Callable[[Path], Path], tmp_path: Path) -> None:
    """Values may change where a format has no checksum of its own."""
    path = made(tmp_path)
    content, whole, draw = path.read_bytes(), load(path), random.Random(0)
    for _ in range(150):
        path.write_bytes(damaged(content, draw))
        found = read(path)
        if found is not None:
            assert found.data.shape == whole.data.shape
            assert (found.labels is None) == (whole.labels is None)
