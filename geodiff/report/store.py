"""Finished parts of a report, kept under a key of all that went into them, so that none is computed twice."""

import hashlib
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from geodiff.base.files import atomic_path
from geodiff.data.digest import digest
from geodiff.report.finding import Finding


class Store:
    """A folder with a file per finished part."""

    def __init__(self, folder: Path, inputs: dict[str, object]) -> None:
        self.folder = folder
        self.inputs = inputs
        folder.mkdir(parents=True, exist_ok=True)

    def key(self, part: Callable[..., Any]) -> str:
        """A digest of the inputs and of the source of the part: what is changed is computed anew."""
        source = inspect.getsource(sys.modules[part.__module__])
        text = json.dumps([part.__name__, source, self.inputs], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def load(self, part: Callable[..., Any]) -> Finding | None:
        """The finding of a part that was finished with these inputs; None if there is none that can be read."""
        path = self._path(part)
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            return Finding.restored(fields["finding"]) if fields["key"] == self.key(part) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # never written, or damaged: it is computed anew either way

    def save(self, part: Callable[..., Any], finding: Finding) -> None:
        """Keep a finished part."""
        text = json.dumps({"key": self.key(part), "finding": finding.stored()}, ensure_ascii=False)
        with atomic_path(self._path(part)) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _path(self, part: Callable[..., Any]) -> Path:
        return self.folder / f"{part.__name__}.json"


def digest_of_module(module: nn.Module) -> str:
    """sha256 of the weights of a module, in order of their names."""
    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        found.update(name.encode())
        found.update(digest(value.detach().reshape(-1)).encode())
    return found.hexdigest()
