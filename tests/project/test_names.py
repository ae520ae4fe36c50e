"""Names that README and the docs use exist after `import geodiff`, and no function hides a module."""

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import geodiff

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")] if path.exists())
NAME = re.compile(r"(?<!from )(?<!import )\bgeodiff(?:\.[A-Za-z_][A-Za-z_0-9]*)+")


def used() -> list[str]:
    """Every dotted name in code of the pages, and in examples."""
    names: set[str] = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for code in [*re.findall(r"```python\n(.*?)```", text, re.DOTALL), *re.findall(r"`([^`\n]+)`", text)]:
            names |= set(NAME.findall(code))
    for example in (ROOT / "examples").glob("*.py"):
        names |= set(NAME.findall(example.read_text(encoding="utf-8")))
    return sorted(names)


@pytest.mark.parametrize("name", used())
def test_a_name_of_the_docs_resolves_after_the_import_alone(name: str) -> None:
    found: object = geodiff
    for part in name.split(".")[1:]:
        found = getattr(found, part)


def test_all_names_resolve_and_nothing_heavy_is_imported_before_they_are_used() -> None:
    code = (
        "import sys, geodiff\n"
        "assert 'torch' not in sys.modules, 'importing geodiff imports torch'\n"
        "for name in geodiff.__all__: getattr(geodiff, name)\n"
        "assert geodiff.__version__\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        geodiff.nothing  # noqa: B018


def test_short_import_paths_give_the_module_itself() -> None:
    quality = importlib.import_module("geodiff.quality")
    assert quality is importlib.import_module("geodiff.analysis.quality")
    assert quality.__spec__ is not None
    assert quality.__spec__.name == quality.__name__ == "geodiff.analysis.quality"


def test_no_function_hides_its_module() -> None:
    hidden = []
    for found in pkgutil.walk_packages(geodiff.__path__, "geodiff."):
        if found.name.endswith("__main__"):
            continue
        folder, _, name = found.name.rpartition(".")
        value = getattr(importlib.import_module(folder), name, None)
        if value is not None and not isinstance(value, ModuleType):
            hidden.append(found.name)
    assert hidden == []
