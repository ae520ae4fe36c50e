"""bench/summary.py: every peer has its column, what did not run its remark, and the plot its gap; trajectories, too."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.bench.scripts import loaded

pytest.importorskip("matplotlib", reason="the package matplotlib is not installed")


@pytest.fixture(scope="module")
def summary() -> ModuleType:
    return loaded("summary")


def way(name: str, milliseconds: float | None, error: float | None = 2e-7, note: str = "") -> dict[str, Any]:
    ratio = 80.0 / milliseconds if milliseconds else None
    return {"name": name, "median_ms": milliseconds, "ratio": ratio, "error": error, "note": note}


DOCUMENT = {
    "cells": [
        {
            "sigma": sigma,
            "batch": batch,
            "baseline": "torch-sdpa",
            "ours": [way("geodiff-cpu-avx2", 10.0)],
            "peers": [
                way("torch-softmax", 90.0),
                way("torch-sdpa", 80.0),
                way("keops", 38400.0, 1e-5),
                way("faiss-200", None, None, "not installed: faiss"),
                way("naive", 1234.0) if batch == 1 else way("naive", None, None, "left out: 38 s at B = 64"),
            ],
        }
        for sigma in (40.0, 0.5)
        for batch in (1, 256)
    ]
}


def test_table(summary: ModuleType) -> None:
    assert summary.markdown(DOCUMENT).splitlines() == [
        "| σ | B | geodiff | PyTorch float32, fastest form | faster | KeOps | FAISS top-200 | query by query |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| 40 | 1 | 10.0 ms, 2e-07 | 80.0 ms, 2e-07 | **8.0×** | 38.4 s, 1e-05 | — [1] | 1.23 s, 2e-07 |",
        "| 40 | 256 | 10.0 ms, 2e-07 | 80.0 ms, 2e-07 | **8.0×** | 38.4 s, 1e-05 | — [1] | — [2] |",
        "| 0.5 | 1 | 10.0 ms, 2e-07 | 80.0 ms, 2e-07 | **8.0×** | 38.4 s, 1e-05 | — [1] | 1.23 s, 2e-07 |",
        "| 0.5 | 256 | 10.0 ms, 2e-07 | 80.0 ms, 2e-07 | **8.0×** | 38.4 s, 1e-05 | — [1] | — [2] |",
        "",
        "[1] not installed: faiss; [2] left out: 38 s at B = 64",
    ]


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [
        (0.0314159, "0.0314 ms"),
        (7.6444, "7.64 ms"),
        (100.44, "100 ms"),
        (999.7, "1.00 s"),
        (1022.4, "1.02 s"),
        (152_300.0, "152 s"),
    ],
)
def test_durations_have_three_digits(summary: ModuleType, milliseconds: float, shown: str) -> None:
    assert summary.duration(milliseconds) == shown


def test_a_result_that_was_refused_and_no_baseline(summary: ModuleType) -> None:
    cell = {"sigma": 1.0, "batch": 1, "baseline": None, "ours": [way("geodiff-cpu", None, 0.1, "breaks")], "peers": []}
    assert summary.markdown({"cells": [cell]}).splitlines()[2:] == ["| 1 | 1 | — [1] | — | — |", "", "[1] breaks"]


def walk(batch: int) -> dict[str, Any]:
    theirs = [way("torch loop", 80.0, None), way("k-diffusion's loop", 64.0 if batch == 64 else None, None)]
    return {"solver": "heun", "steps": 18, "batch": batch, "ways": [way("kept, tol 1e-05", 16.0), *theirs]}


WALKS = {"walks": [walk(1), walk(64), {"solver": "theirs", "steps": 5, "batch": 64, "ways": [way("torch loop", 8.0)]}]}


def test_table_of_trajectories(summary: ModuleType) -> None:
    assert summary.walks_markdown(WALKS).splitlines() == [
        "| solver | B | PyTorch, fastest loop | kept, tol 1e-05 |",
        "| --- | --- | --- | --- |",
        "| Heun, 18 levels | 1 | 80.0 ms | 16.0 ms, 5.0× |",
        "| Heun, 18 levels | 64 | 64.0 ms | 16.0 ms, 4.0× |",
        "| theirs, 5 steps | 64 | 8.00 ms | — |",
    ]


@pytest.mark.parametrize(("document", "table"), [(DOCUMENT, "markdown"), (WALKS, "walks_markdown")])
def test_command(
    summary: ModuleType,
    document: dict[str, Any],
    table: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results, picture = tmp_path / "results.json", tmp_path / "speed.png"
    results.write_text(json.dumps(document))
    monkeypatch.setattr(sys, "argv", ["summary.py", str(results), "--plot", str(picture)])
    summary.main()
    assert capsys.readouterr().out.strip() == getattr(summary, table)(document)
    assert picture.read_bytes()[1:4] == b"PNG"
