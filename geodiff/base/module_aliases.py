"""Import paths that are shorter than the folder a module lives in: `import geodiff.quality`."""

import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Aliases(MetaPathFinder, Loader):
    """Answers an import of a short path with the very module that lives elsewhere."""

    def __init__(self, homes: Mapping[str, str]) -> None:
        self._homes = homes

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in self._homes else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._homes[spec.name])
        self._spec = module.__spec__  # which the import system is about to replace
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


def install(homes: Mapping[str, str]) -> None:
    """From now on `import short` gives the module `home`, for every pair of homes."""
    sys.meta_path.append(_Aliases(homes))
