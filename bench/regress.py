"""Whether a new measurement is slower than an old one: two files of `geodiff bench --out`, cell by cell.

    python bench/regress.py bench/results/cpu_uint8.json out/new.json            # exit code 1 on a loss over 10 %
    python bench/regress.py old.json new.json --loss 5

What is compared is the ratio to the fastest float32 form of PyTorch in the same run, so that two machines of one kind,
or one machine on two days, can be held against each other; --absolute compares milliseconds instead, for two builds
that were measured in turns on one machine. A cell counts as slower where the loss exceeds `--loss` and also the scatter
of both runs.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: sigma, batch, name of the variant
Key = tuple[float, int, str]


@dataclass(frozen=True)
class Change:
    """new over old, as a factor by which the cell has become slower; noise: the larger scatter of the two, relative."""

    key: Key
    factor: float
    noise: float

    def lost(self, allowed: float) -> bool:
        """Whether it is slower by more than `allowed`, and by more than measuring again would explain."""
        return self.factor - 1 > max(allowed, self.noise)


def cells(document: dict[str, Any]) -> dict[Key, dict[str, Any]]:
    """Our entries that were timed, by their key."""
    return {
        (cell["sigma"], cell["batch"], entry["name"]): entry
        for cell in document["cells"]
        for entry in cell["ours"]
        if entry["median_ms"] is not None
    }


def changes(old: dict[str, Any], new: dict[str, Any], *, absolute: bool) -> Iterator[Change]:
    """One for every cell that both have."""
    before, after = cells(old), cells(new)
    for key in before:
        if key not in after:
            continue
        a, b = before[key], after[key]
        factor = b["median_ms"] / a["median_ms"] if absolute else a["ratio"] / b["ratio"]
        yield Change(key, factor, max(a.get("spread") or 0.0, b.get("spread") or 0.0))


def main() -> int:
    """Prints the table; 1 if a cell has lost, 2 if there is nothing to compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--loss", type=float, default=10.0, help="per cent that a cell may lose (default: 10)")
    parser.add_argument("--absolute", action="store_true", help="compare milliseconds, not ratios to PyTorch")
    asked = parser.parse_args()
    old, new = (json.loads(path.read_text(encoding="utf-8")) for path in (asked.old, asked.new))
    found = list(changes(old, new, absolute=asked.absolute))
    if not found:
        print(f"{asked.old} and {asked.new} have no cell in common", file=sys.stderr)
        return 2
    for name, document in (("old", old), ("new", new)):
        machine = document["machine"]
        print(
            f"{name}: {machine['cpu']}, {machine['threads']} threads, {machine['isa']}; {document.get('commit', '?')}"
        )
    print("\n| σ | B | | new time over old | scatter |\n|---|---|---|---|---|")
    for change in found:
        sigma, batch, name = change.key
        mark = " **slower**" if change.lost(asked.loss / 100) else ""
        print(f"| {sigma:g} | {batch} | {name} | {change.factor:.3f}{mark} | {change.noise:.3f} |")
    lost = sum(change.lost(asked.loss / 100) for change in found)
    print(f"\n{lost} of {len(found)} cells are slower by more than {asked.loss:g} %")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
