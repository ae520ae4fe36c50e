"""Packages that only some sources need: found when asked for, with a word on how to install a missing one."""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

from geodiff.base.package_name import install_hint


def require(module: str, package: str, needed_by: str) -> ModuleType:
    """Imports a module; raises ImportError that names the extra to install where its package is missing."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise missing(package, needed_by) from error


def package_folder(module: str, package: str, needed_by: str) -> Path:
    """The folder of an installed package, found without importing it (scikit-learn alone takes 2 s to import)."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise missing(package, needed_by)
    return Path(spec.submodule_search_locations[0])


def missing(package: str, needed_by: str) -> ImportError:
    return ImportError(f"{needed_by} needs the package {package}, which is not installed; {install_hint('data')}")
