"""The document of `geodiff bench`: what a run has found, in the file after each part of it, and its entries."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from geodiff.base.finite import finite
from geodiff.cli.console import note, print_json, progress_bar
from geodiff.distributed import job
from geodiff.measure import benchmark, local_benchmark, record, trajectories

_Case = TypeVar("_Case")
_Found = TypeVar("_Found")
_Entry = Callable[[_Found], dict[str, Any]]


@dataclass(frozen=True)
class Results:
    """What a run has found: in the file after each part of it, so that a kill loses no more than one."""

    about: dict[str, Any]
    name: str  # of the list of entries
    out: Path | None
    json: bool

    def of_each(self, cases: Sequence[_Case], run: Callable[[_Case], _Found], entry: _Entry[_Found]) -> list[_Found]:
        """run(case) of all cases, in order."""
        found: list[_Found] = []
        with progress_bar() as bar:
            for case in bar.track(cases, description="timing"):
                found.append(run(case))
                if len(found) < len(cases):
                    self._write([entry(one) for one in found], {"left": len(cases) - len(found)})
        self.finish([entry(one) for one in found])
        return found

    def finish(self, entries: list[dict[str, Any]]) -> None:
        """To the file, and as JSON to standard output if that is wanted."""
        document = self._write(entries, {})
        if self.out is not None and job.ranks().rank == 0:
            note(f"wrote {self.out}")
        if self.json:
            print_json(document)

    def _write(self, entries: list[dict[str, Any]], more: dict[str, Any]) -> dict[str, Any]:
        document = finite({**self.about, self.name: entries, **more})
        if self.out is not None and job.ranks().rank == 0:
            record.write(self.out, document)
        return document


def cell_entry(cell: benchmark.Cell) -> dict[str, Any]:
    """Every way of one cell: medians in milliseconds, ratios to the baseline, errors; None where there is none."""

    def entry(timing: benchmark.Timing) -> dict[str, Any]:
        ran = bool(timing.milliseconds)
        return {
            "name": timing.name,
            "median_ms": round(timing.median, 4) if ran else None,
            "spread": round(timing.spread, 3) if ran else None,
            "ratio": round(cell.ratio(timing), 3) if ran and cell.baseline else None,
            "error": timing.error if timing.error == timing.error else None,
            "rounds": len(timing.milliseconds),
            "note": timing.note,
        }

    return {
        **({"kind": cell.kind, "patch": cell.patch} if isinstance(cell, local_benchmark.LocalCell) else {}),
        "sigma": cell.sigma,
        "batch": cell.batch,
        "baseline": cell.baseline.name if cell.baseline else None,
        "ours": [entry(timing) for timing in cell.ours],
        "peers": [entry(timing) for timing in cell.peers],
    }


def walks_entry(walks: trajectories.Walks) -> dict[str, Any]:
    """Every way of one solver and batch; None where one did not run."""

    def number(value: float, digits: int) -> float | None:
        return round(value, digits) if value == value else None

    ways = [
        {
            "name": way.name,
            "median_ms": number(way.median, 2),
            "ratio": number(walks.ratio(way), 3),
            "error": number(way.error, 12),
            "rounds": len(way.milliseconds),
            "note": way.note,
        }
        for way in walks.ways
    ]
    return {"solver": walks.solver, "steps": walks.steps, "batch": walks.batch, "ways": ways}
