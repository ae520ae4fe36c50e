"""Results that are kept: what was measured, when, of which commit and versions, and on which machine."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geodiff.base.files import atomic_path
from geodiff.measure import machine


def document(what: str, **found: object) -> dict[str, Any]:
    """`what`, the script and what its numbers are; then `machine.provenance()`; then what was found."""
    return {"what": what, **machine.provenance(), **found}


def write(path: Path, document: Mapping[str, Any]) -> None:
    """As JSON, whole or not there: a run that is stopped leaves the file that it wrote last."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
