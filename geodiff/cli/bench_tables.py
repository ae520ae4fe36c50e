"""What `geodiff bench` has found, as tables for a terminal."""

from rich.table import Table

from geodiff.cli.bench_document import walks_entry
from geodiff.cli.console import table
from geodiff.measure import benchmark, trajectories
from geodiff.measure.peaks import Call, Peaks


def walks_table(walks: trajectories.Walks) -> Table:
    """Every way of one solver and batch."""
    shown = table("", "median ms ", "ratio ", "error ", "")
    for way in walks_entry(walks)["ways"]:
        cells = (way["median_ms"], way["ratio"], way["error"])
        shown.add_row(way["name"], *("-" if one is None else f"{one:.3g}" for one in cells), way["note"])
    return shown


def cell_table(cell: benchmark.Cell) -> Table:
    """Every way of one cell, and which one ratios are to."""
    shown = table("", "median ms ", "ratio ", "error ", "")
    for timing in (*cell.ours, *cell.peers):
        ran = bool(timing.milliseconds)
        remark = timing.note or ("<- ratios are to this" if timing is cell.baseline else "")
        shown.add_row(
            timing.name,
            f"{timing.median:.2f}" if ran else "-",
            f"{cell.ratio(timing):.2f}" if ran and cell.baseline else "-",
            f"{timing.error:.1e}" if timing.error == timing.error else "-",
            remark,
        )
    return shown


def peaks_table(measured: list[Peaks]) -> Table:
    """What the processor and its memory could do, by instruction set."""
    shown = table("", "float32, G/s ", "integers, G/s ", "memory, GB/s ")
    for one in measured:
        integer = "-" if one.integer is None else f"{one.integer:.0f}"
        shown.add_row(one.isa, f"{one.float32:.0f}", integer, f"{one.read:.1f}")
    return shown


def calls_table(found: list[Call]) -> Table:
    """What calls reach of that."""
    shown = table("", "sigma ", "B ", "median ms ", "products, G/s ", "of the peak ", "data, GB/s ", "of the memory's ")
    for call in found:
        shown.add_row(
            call.isa,
            f"{call.sigma:g}",
            str(call.batch),
            f"{call.milliseconds:.2f}",
            f"{call.products:.1f}",
            f"{call.share:.0%}",
            f"{call.read:.1f}",
            f"{call.share_read:.0%}",
        )
    return shown
