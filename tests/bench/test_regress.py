"""bench/regress.py: what counts as slower, and what it says."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.bench.scripts import loaded


@pytest.fixture(scope="module")
def regress() -> ModuleType:
    return loaded("regress")


def document(ratio: float, spread: float = 0.0, milliseconds: float = 10.0) -> dict[str, Any]:
    entry = {"name": "ours", "median_ms": milliseconds, "ratio": ratio, "spread": spread, "error": 1e-6}
    broken = {"name": "broken", "median_ms": None, "ratio": None, "spread": None, "error": 1.0}
    cell = {"sigma": 40.0, "batch": 16, "ours": [entry, broken], "peers": []}
    return {"machine": {"cpu": "one", "threads": 2, "isa": "avx2"}, "commit": "abc", "cells": [cell]}


def run(regress: ModuleType, folder: Path, old: dict[str, Any], new: dict[str, Any], *options: str) -> int:
    paths = [folder / "old.json", folder / "new.json"]
    for path, content in zip(paths, (old, new), strict=True):
        path.write_text(json.dumps(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["regress.py", *map(str, paths), *options])
        code: int = regress.main()
    return code


@pytest.mark.parametrize(
    ("ratio", "spread", "options", "code"),
    [
        (4.0, 0.0, (), 0),
        (3.7, 0.0, (), 0),  # 8 %
        (3.5, 0.0, (), 1),  # 14 %
        (3.5, 0.2, (), 0),  # within the scatter
        (3.7, 0.0, ("--loss", "5"), 1),
        (5.0, 0.0, (), 0),
    ],
)
def test_a_loss_beyond_the_allowed_and_the_scatter(
    regress: ModuleType, tmp_path: Path, ratio: float, spread: float, options: tuple[str, ...], code: int
) -> None:
    assert run(regress, tmp_path, document(4.0), document(ratio, spread), *options) == code


def test_milliseconds_where_both_ran_on_one_machine(regress: ModuleType, tmp_path: Path) -> None:
    old, new = document(4.0, milliseconds=10.0), document(4.0, milliseconds=12.0)
    assert run(regress, tmp_path, old, new) == 0
    assert run(regress, tmp_path, old, new, "--absolute") == 1


def test_the_table_names_the_cell(regress: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(regress, tmp_path, document(4.0), document(2.0))
    shown = capsys.readouterr().out
    assert "| 40 | 16 | ours | 2.000 **slower** | 0.000 |" in shown
    assert "1 of 1 cells are slower" in shown


def test_nothing_to_compare_is_an_error(regress: ModuleType, tmp_path: Path) -> None:
    other = document(4.0)
    other["cells"][0]["batch"] = 1
    assert run(regress, tmp_path, document(4.0), other) == 2
