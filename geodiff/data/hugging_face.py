"""What the library datasets has besides data sets: several splits in one object, and folders that only it reads.

Neither is read here, and datasets is not imported: an error says what to pass instead.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from geodiff.base.errors import DataError


def check_one_split(source: Any) -> None:
    """Raises ValueError for a DatasetDict, which is a data set for each split."""
    if isinstance(source, Mapping):
        raise ValueError(
            f"source: expected one data set, found {type(source).__name__} with the splits "
            f"{', '.join(map(repr, source)) or 'none'}; allowed one of them: source[{_usual(source)!r}]"
        )


def check_not_saved(folder: Path) -> None:
    """Raises DataError for a folder of save_to_disk: one data set, or a folder of them for each split."""
    if _is_saved(folder):
        read = f"datasets.load_from_disk({str(folder)!r})"
    elif (folder / "dataset_dict.json").is_file():
        splits = sorted(child.name for child in folder.iterdir() if _is_saved(child))
        read = f"datasets.load_from_disk({str(folder)!r})[{_usual(splits)!r}]"
    else:
        return
    raise DataError(
        folder,
        f"a folder of save_to_disk, which the library datasets alone reads; pass {read}, or a file of to_parquet",
    )


def _is_saved(folder: Path) -> bool:
    return (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()


def _usual(splits: Iterable[Any]) -> Any:
    names = list(splits)
    return "train" if "train" in names or not names else names[0]
