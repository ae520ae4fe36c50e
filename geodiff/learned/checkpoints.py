"""A training run as it stood, in one file that a run with the same settings goes on from."""

from pathlib import Path
from typing import Any

import torch

from geodiff.base.errors import DataError
from geodiff.base.files import atomic_path


def save(path: Path, form: int, state: dict[str, Any]) -> None:
    """A checkpoint, whole or not there; form: its format, which changes whenever what it holds does."""
    with atomic_path(path) as temporary:
        torch.save({"format": form, **state}, temporary)


def load(path: Path, form: int, needed: tuple[str, ...]) -> dict[str, Any]:
    """What `save` wrote. Raises DataError for what has not all that is needed, or another format."""
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
        found, missing = state.get("format"), sorted({*needed} - {*state})
    except Exception as error:  # torch.load raises whatever its zip reader and unpickler do
        raise DataError(path, f"a damaged or other checkpoint ({error})") from error
    if missing:
        raise DataError(path, f"a damaged or other checkpoint (without {', '.join(missing)})")
    if found != form:
        raise DataError(path, f"a checkpoint of format {found}; this geodiff goes on from format {form} only")
    return state


def check(path: Path, wanted: dict[str, Any], found: dict[str, Any]) -> None:
    """Raises ValueError for the first that a checkpoint at `path` was made with another of."""
    for key, value in wanted.items():
        if found.get(key) != value:
            raise ValueError(
                f"{key}: expected {found.get(key)!r} as in {path}, found {value!r}; "
                f"allowed the same settings to go on, or another folder to start anew"
            )
