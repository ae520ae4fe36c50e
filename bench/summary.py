"""The table and the plot of the README, from the results that `geodiff bench --out` wrote.

    python bench/summary.py bench/results/cpu_uint8.json --plot docs/speed.png

prints the table as Markdown.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SHOWN = {
    "torch-bfloat16": "torch bfloat16",
    "keops": "KeOps",
    "faiss-200": "FAISS top-200",
    "naive": "query by query",
}


def entry(cell: dict[str, Any], name: str) -> dict[str, Any]:
    """The named way in a cell; {} if it was not asked for."""
    return next((e for e in cell["ours"] + cell["peers"] if e["name"] == name), {})


def text(found: dict[str, Any]) -> str:
    """Time, and the error where it matters."""
    if not found or found["median_ms"] is None:
        return f"— ({found['note']})" if found.get("note") else "—"
    return f"{found['median_ms']:.4g} ms, {found['error']:.0e}"


def markdown(document: dict[str, Any]) -> str:
    """One row per cell: ours, the fastest float32 form of PyTorch, their ratio, the others."""
    lines = [
        "| σ | B | geodiff | PyTorch float32, fastest form | faster | " + " | ".join(SHOWN.values()) + " |",
        "|---|---|---|---|---|" + "---|" * len(SHOWN),
    ]
    for cell in document["cells"]:
        ours = cell["ours"][0]
        base = entry(cell, cell["baseline"])
        ratio = f"**{ours['ratio']:.1f}×**" if ours["ratio"] else "—"
        others = " | ".join(text(entry(cell, name)) for name in SHOWN)
        lines.append(f"| {cell['sigma']:g} | {cell['batch']} | {text(ours)} | {text(base)} | {ratio} | {others} |")
    return "\n".join(lines)


def plot(document: dict[str, Any], path: Path) -> None:
    """Time per call against batch size, one panel per noise level."""
    levels = sorted({cell["sigma"] for cell in document["cells"]}, reverse=True)
    figure, axes = plt.subplots(1, len(levels), figsize=(4.6 * len(levels), 3.6), sharey=True, squeeze=False)
    for axis, sigma in zip(axes[0], levels, strict=True):
        cells = sorted((c for c in document["cells"] if c["sigma"] == sigma), key=lambda c: c["batch"])
        batches = [cell["batch"] for cell in cells]
        rows = {
            "geodiff": [cell["ours"][0]["median_ms"] for cell in cells],
            "PyTorch float32 (fastest form)": [entry(c, c["baseline"]).get("median_ms") for c in cells],
            **{label: [entry(cell, name).get("median_ms") for cell in cells] for name, label in SHOWN.items()},
        }
        for label, times in rows.items():
            known = [(b, t) for b, t in zip(batches, times, strict=True) if t]
            if known:
                style = {"linewidth": 2.6, "zorder": 3} if label == "geodiff" else {"linewidth": 1.2}
                axis.plot(*zip(*known, strict=True), marker="o", markersize=4, label=label, **style)
        axis.set(xscale="log", yscale="log", xlabel="queries per call, B", title=f"σ = {sigma:g}")
        axis.set_xticks(batches, [str(b) for b in batches], minor=False)
        axis.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axis.grid(alpha=0.25)
    axes[0][0].set_ylabel("milliseconds per call")
    axes[0][-1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=140)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    document = json.loads(arguments.results.read_text())
    print(markdown(document))
    if arguments.plot:
        plot(document, arguments.plot)


if __name__ == "__main__":
    main()
