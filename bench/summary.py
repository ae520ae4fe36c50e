"""The tables and the plots of the README, from the results that `geodiff bench --out` wrote.

    geodiff bench --data train.npy --batch 1 --batch 16 --out bench/results/cpu_uint8.json
    python bench/summary.py bench/results/cpu_uint8.json --plot docs/speed.png

prints the table as Markdown, with a column for each peer that was asked for; of whole trajectories from the results of
`geodiff bench --trajectory`.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from geodiff.base.files import atomic_path

#: Peers with a column and a line of their own; the float32 forms of PyTorch share one.
SHOWN = {
    "torch-bfloat16": "torch bfloat16",
    "keops": "KeOps",
    "faiss-200": "FAISS top-200",
    "naive": "query by query",
}

#: What solvers are called in tables.
SOLVERS = {"heun": "Heun", "euler": "Euler", "dpmpp2m": "DPM-Solver++(2M)"}


def entry(cell: dict[str, Any], name: str) -> dict[str, Any]:
    """The named way in a cell; {} if it was not asked for."""
    return next((e for e in cell["ours"] + cell["peers"] if e["name"] == name), {})


def shown(document: dict[str, Any]) -> dict[str, str]:
    """Name -> heading of the peers that were asked for."""
    return {name: label for name, label in SHOWN.items() if any(entry(cell, name) for cell in document["cells"])}


def duration(milliseconds: float) -> str:
    """Three digits, in seconds from one second on."""
    if milliseconds >= 999.5:  # which would be shown as 1.00e+03
        return f"{milliseconds / 1000:.{max(0, 2 - int(math.log10(milliseconds / 1000)))}f} s"
    return f"{milliseconds:#.3g}".rstrip(".") + " ms"


def text(found: dict[str, Any], remarks: list[str]) -> str:
    """Time and error; without a time the number of a remark, which is added to `remarks` if it is new."""
    if found and found["median_ms"] is not None:
        return f"{duration(found['median_ms'])}, {found['error']:.0e}"
    note = found.get("note", "")
    if note and note not in remarks:
        remarks.append(note)
    return f"— [{remarks.index(note) + 1}]" if note else "—"


def markdown(document: dict[str, Any]) -> str:
    """One row per cell: ours, the fastest float32 form of PyTorch, their ratio, the others; then the remarks."""
    others, remarks = shown(document), list[str]()
    headings = ["σ", "B", "geodiff", "PyTorch float32, fastest form", "faster", *others.values()]
    lines = [f"| {' | '.join(headings)} |", "|" + " --- |" * len(headings)]
    for cell in document["cells"]:
        ours = cell["ours"][0]
        row = [f"{cell['sigma']:g}", str(cell["batch"]), text(ours, remarks)]
        row += [text(entry(cell, cell["baseline"]), remarks), f"**{ours['ratio']:.1f}×**" if ours["ratio"] else "—"]
        lines.append(f"| {' | '.join(row + [text(entry(cell, name), remarks) for name in others])} |")
    numbered = [f"[{number}] {note}" for number, note in enumerate(remarks, 1)]
    return "\n".join(lines + (["", "; ".join(numbered)] if numbered else []))


def plot(document: dict[str, Any], path: Path) -> None:
    """Time per call against batch size, one panel per noise level."""
    levels = sorted({cell["sigma"] for cell in document["cells"]}, reverse=True)
    size = (4.6 * len(levels), 4.2)
    figure, axes = plt.subplots(1, len(levels), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axis, sigma in zip(axes[0], levels, strict=True):
        cells = sorted((c for c in document["cells"] if c["sigma"] == sigma), key=lambda c: c["batch"])
        batches = [cell["batch"] for cell in cells]
        rows = {
            "geodiff": [cell["ours"][0]["median_ms"] for cell in cells],
            "PyTorch float32 (fastest form)": [entry(c, c["baseline"]).get("median_ms") for c in cells],
            **{label: [entry(c, name).get("median_ms") for c in cells] for name, label in shown(document).items()},
        }
        for label, times in rows.items():
            # A gap, not a line across it, where there is no time.
            style = {"linewidth": 2.6, "zorder": 3} if label == "geodiff" else {"linewidth": 1.2}
            axis.plot(batches, [t or math.nan for t in times], marker="o", markersize=4, label=label, **style)
        axis.set(xscale="log", yscale="log", xlabel="queries per call, B", title=f"σ = {sigma:g}")
        axis.set_xticks(batches, [str(b) for b in batches], minor=False)
        axis.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axis.grid(alpha=0.25)
    axes[0][0].set_ylabel("milliseconds per call")
    save(figure, axes[0][0], path)


def save(figure: Any, legend_of: Any, path: Path) -> None:
    """Writes the figure with one legend for all of its panels."""
    figure.legend(*legend_of.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=140)
    plt.close(figure)


def walk_title(walk: dict[str, Any]) -> str:
    unit = "levels" if walk["solver"] == "heun" else "steps"
    return f"{SOLVERS.get(walk['solver'], walk['solver'])}, {walk['steps']} {unit}"


def walks_markdown(document: dict[str, Any]) -> str:
    """One row per walk: its solver and batch, the fastest loop around PyTorch, and each of our ways over it."""
    ours = list(
        dict.fromkeys(way["name"] for walk in document["walks"] for way in walk["ways"] if is_ours(way["name"]))
    )
    headings = ["solver", "B", "PyTorch, fastest loop", *ours]
    lines = [f"| {' | '.join(headings)} |", "|" + " --- |" * len(headings)]
    for walk in document["walks"]:
        times = {way["name"]: way["median_ms"] for way in walk["ways"] if way["median_ms"] is not None}
        loops = [time for name, time in times.items() if not is_ours(name)]
        row = [walk_title(walk), str(walk["batch"]), duration(min(loops)) if loops else "—"]
        for name in ours:
            shown = duration(times[name]) if name in times else "—"
            row.append(f"{shown}, {min(loops) / times[name]:.1f}×" if loops and name in times else shown)
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def is_ours(name: str) -> bool:
    """Whether a way of `geodiff bench --trajectory` is none of the loops around a PyTorch denoiser."""
    return "tol" in name


def plot_walks(document: dict[str, Any], path: Path) -> None:
    """Time of a whole trajectory by each way, one panel per batch size and one line per solver."""
    batches = sorted({walk["batch"] for walk in document["walks"]})
    size = (4.6 * len(batches), 3.6)
    figure, axes = plt.subplots(1, len(batches), figsize=size, sharey=True, squeeze=False, layout="constrained")
    names = list(dict.fromkeys(way["name"] for walk in document["walks"] for way in walk["ways"]))
    ours = [name for name in names if is_ours(name)]
    for axis, batch in zip(axes[0], batches, strict=True):
        walks = [walk for walk in document["walks"] if walk["batch"] == batch]
        for name in names:
            times = [next((w["median_ms"] for w in walk["ways"] if w["name"] == name), None) for walk in walks]
            # Ours lie close together: one above the other.
            above = 0.5 * (ours.index(name) / max(1, len(ours) - 1) - 0.5) if name in ours else 0
            places = [number + above for number in range(len(walks))]
            marker = "o" if name in ours else "s"
            axis.plot([(t or math.nan) / 1000 for t in times], places, marker, markersize=5, label=name)
        axis.set(xscale="log", xlabel="seconds", title=f"{batch} sample{'s' if batch > 1 else ''}")
        axis.set_yticks(range(len(walks)), [walk_title(walk) for walk in walks])
        axis.grid(alpha=0.25)
    axes[0][0].invert_yaxis()
    save(figure, axes[0][0], path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    document = json.loads(arguments.results.read_text())
    table, picture = (walks_markdown, plot_walks) if "walks" in document else (markdown, plot)
    print(table(document))
    if arguments.plot:
        picture(document, arguments.plot)


if __name__ == "__main__":
    main()
