"""A report from end to end: compute every part that is not finished yet, then write the page and report.json."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from geodiff.base.arguments import SEED_MAX, check_integer
from geodiff.base.files import atomic_path
from geodiff.base.version import VERSION
from geodiff.data import Dataset
from geodiff.data.digest import digest
from geodiff.distributed import job
from geodiff.distributed.ranks import leading
from geodiff.learned.weights_file import Network
from geodiff.measure import machine
from geodiff.report.context import Context
from geodiff.report.finding import Finding
from geodiff.report.page import render
from geodiff.report.parts import PARTS
from geodiff.report.store import Store, digest_of_module


def run(
    dataset: Dataset,
    out: Path,
    *,
    learned: Network | None = None,
    num: int = 256,
    seed: int = 0,
    backend: str = "auto",
    parts: Sequence[Callable[[Context], Finding]] = PARTS,
    progress: Callable[[str, int, int], object] = lambda part, done, total: None,
    tick: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Measure every claim on `dataset`; write `out`/report.html (one self-contained page) and `out`/report.json.

    learned   a network over the same data, for what compares with the optimal denoiser; a student of any kind
    num       noises that trajectories start from
    progress  called as progress(part, parts done, parts in all) before each part and at the end
    tick      called after each evaluation of a denoiser

    Under torchrun each process takes its rows, and the first writes.
    A part that was finished before with the same data, network and settings is taken from `out`/parts.
    Returns what report.json holds. Raises ValueError for a network of other shapes, ImportError without matplotlib or
    jinja2 (the extra `report`).
    """
    num, seed = check_integer(num, "num", 2), check_integer(seed, "seed", 0, SEED_MAX)
    if (dataset.data == dataset.data[:1]).all():
        raise ValueError(
            f"data: expected two points or more that differ, to be measured between, found {len(dataset)} that "
            f"{'do not' if len(dataset) > 1 else 'is alone'}; allowed any other data"
        )
    shape = tuple(dataset.data.shape[1:])
    if learned is not None and tuple(learned.shape) != shape:
        raise ValueError(f"net: expected a denoiser of points {shape}, as the data are, found one of {learned.shape}")
    inputs: dict[str, object] = {
        "geodiff": VERSION,
        "data": digest(dataset.data),
        "net": None if learned is None else digest_of_module(learned),
        "num": num,
        "seed": seed,
        "backend": backend,
    }
    ranks = job.ranks()
    if ranks.size > 1:
        inputs["ranks"] = ranks.size
    with leading(ranks):
        store = Store(out / "parts", inputs)
    optimal = job.denoiser_over(dataset.data, backend=backend)
    context = Context(dataset, optimal, learned, num=num, seed=seed, tick=tick)
    findings = []
    for done, part in enumerate(parts):
        progress(part.__name__, done, len(parts))
        finding = ranks.first_says(store.load(part))
        if finding is None:
            finding = part(context)
            with leading(ranks) as leads:
                if leads:
                    store.save(part, finding)
        findings.append(finding)
    progress("page", len(parts), len(parts))
    document = {
        "data": dataset.name,
        "N": len(dataset),
        "shape": list(shape),
        "net": None if learned is None else learned.training_metadata,
        "noises": num,
        "seed": seed,
        "backend": context.optimal.backend,
        "machine": machine.describe(),
        "inputs": inputs,
        "held": sum(finding.held is True for finding in findings),
        "not_held": sum(finding.held is False for finding in findings),
        "not_measured": sum(finding.held is None for finding in findings),
        "findings": [finding.document() for finding in findings],
    }
    with leading(ranks) as leads:
        if leads:
            _write(out / "report.json", json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
            _write(out / "report.html", render(document, findings))
    return document


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
