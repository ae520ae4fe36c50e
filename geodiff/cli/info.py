"""`geodiff info`: what is installed, what this machine can run, and on request what a data set holds."""

import importlib
import platform
from importlib.metadata import version
from typing import Annotated

import typer

from geodiff import backends
from geodiff.base.version import VERSION
from geodiff.cli.console import print_json, print_table, table
from geodiff.cli.options import Json, Seed
from geodiff.data import load
from geodiff.measure import machine


def info(
    data: Annotated[
        str | None, typer.Option("--data", metavar="PATH|NAME", help="Describe this data set as well.")
    ] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Versions, backends with the reason one is missing and how one is chosen, instruction sets, threads, GPUs."""
    document = _document(data)
    if json:
        print_json(document)
        return
    title = f"geodiff {document.pop('geodiff')}"
    shown = table("", "")
    for key, value in document.items():
        for name, text in _entries(value):
            shown.add_row(f"{key} {name}".strip(), _text(text))
    print_table(title, shown)


def _document(data: str | None) -> dict[str, object]:
    document: dict[str, object] = {
        "geodiff": VERSION,
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "triton": _triton_version(),
        "system": platform.platform(),
        "machine": machine.describe(),
        "backends": {
            name: {"available": backends.is_available(name), "detail": detail}
            for name, detail in backends.available().items()
        },
    }
    document["backend chosen"] = backends.explain()
    document["backend chosen by"] = (
        "every call: the first line that fits the data and its number of queries B, and is usable here"
    )
    if data is not None:
        dataset = load(data)
        document["data"] = {
            "name": dataset.name,
            "N": len(dataset),
            "shape": list(dataset.data.shape[1:]),
            "dtype": str(dataset.data.dtype).removeprefix("torch."),
            "layout": dataset.layout,
            "classes": 0 if dataset.labels is None else int(dataset.labels.unique().numel()),
            "bytes": dataset.data.numel() * dataset.data.element_size(),
        }
    return document


def _triton_version() -> str | None:
    try:
        return str(importlib.import_module("triton").__version__)
    except ImportError:
        return None


def _entries(value: object) -> list[tuple[str, object]]:
    """What stands below one heading: (name, what is said of it)."""
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, list) and value and isinstance(value[0], dict):  # the table of backends, in order
        return [(f"{place}.", _rule(line)) for place, line in enumerate(value, start=1)]
    return [("", value)]


def _rule(line: dict[str, object]) -> str:
    thresholds = f" (thresholds {line['measured']})" if line["measured"] else ""
    usable = "" if line["usable"] else "; not usable here"
    return f"{line['backend']} for data on {line['device']}, {line['for']}: {line['why']}{thresholds}{usable}"


def _text(value: object) -> str:
    if isinstance(value, dict):  # one backend
        return f"{'available' if value['available'] else 'missing'}: {value['detail']}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
