"""Results that are kept say where they come from, and an earlier file survives a write that fails."""

import json
from pathlib import Path

import pytest

from geodiff.measure import machine, record


def test_a_result_has_its_origin_beside_its_numbers(tmp_path: Path) -> None:
    made = record.document("bench/some.py: milliseconds", cells=[1.5], data="digits")
    assert list(made) == ["what", *machine.provenance(), "cells", "data"]
    assert {"date", "commit", "versions", "machine"} <= set(made)
    record.write(tmp_path / "some.json", made)
    assert json.loads((tmp_path / "some.json").read_text(encoding="utf-8")) == made
    assert [path.name for path in tmp_path.iterdir()] == ["some.json"]


def test_what_cannot_be_written_leaves_the_file_that_is_there(tmp_path: Path) -> None:
    out = tmp_path / "some.json"
    record.write(out, {"cells": [1]})
    with pytest.raises(TypeError, match="not JSON serializable"):
        record.write(out, {"cells": [object()]})
    assert json.loads(out.read_text(encoding="utf-8")) == {"cells": [1]}
    assert [path.name for path in tmp_path.iterdir()] == ["some.json"]
