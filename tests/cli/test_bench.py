"""What a benchmark has measured is in its file before it ends."""

import json
from pathlib import Path

import pytest

from geodiff.cli.bench_document import Results


def test_a_stopped_run_keeps_what_it_has_measured(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    results = Results({"what": "squares"}, "cells", out, json=False)

    def run(case: int) -> int:
        if case == 2:
            raise KeyboardInterrupt
        return case * case

    with pytest.raises(KeyboardInterrupt):
        results.of_each(range(5), run, lambda found: {"found": found})
    assert json.loads(out.read_text()) == {"what": "squares", "cells": [{"found": 0}, {"found": 1}], "left": 3}
    assert list(tmp_path.iterdir()) == [out]
    results.of_each(range(2), run, lambda found: {"found": found})
    assert "left" not in json.loads(out.read_text())


def test_a_result_that_is_infinitely_far_off_is_written_down(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    Results({"what": "errors"}, "cells", out, json=False).finish([{"error": float("inf"), "ratio": float("nan")}])
    assert json.loads(out.read_text(), parse_constant=pytest.fail)["cells"] == [{"error": None, "ratio": None}]
