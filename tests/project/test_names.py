"""Names that README and the docs use exist after `import geodiff`, and no function hides a module."""

import ast
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import geodiff
from geodiff.base.version import VERSION

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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_names_of_the_docs_resolve_after_the_import_alone() -> None:
    """Those of a package in a process of its own: other packages may bring its modules along."""
    parts = [name.split(".")[1:] for name in used()]
    for first, *_ in parts:
        getattr(geodiff, first)
    deep = sorted({".".join(rest) for rest in parts if len(rest) > 1})
    code = (
        "import itertools, operator, os, sys, torch, geodiff\n"
        "for package, names in itertools.groupby(sys.argv[1:], lambda name: name.split('.')[0]):\n"
        "    if os.fork() == 0:\n"
        "        for name in names:\n"
        "            try: operator.attrgetter(name)(geodiff)\n"
        "            except AttributeError: print(name, flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *deep], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_all_names_resolve_and_nothing_heavy_is_imported_before_they_are_used() -> None:
    code = (
        "import sys, geodiff\n"
        "assert 'torch' not in sys.modules, 'importing geodiff imports torch'\n"
        "for name in geodiff.__all__: getattr(geodiff, name)\n"
        "assert geodiff.__version__\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_one_list_of_names() -> None:
    """What type checkers see, what is looked up and what `*` brings are the same; a home is where a name is."""
    tree = ast.parse(Path(geodiff.__file__).read_text(encoding="utf-8"))
    (checked,) = [one for one in tree.body if isinstance(one, ast.If)]
    seen = {name.name for one in checked.body if isinstance(one, ast.ImportFrom) for name in one.names}
    looked_up = {*geodiff._HOMES, *geodiff._FOLDERS}
    # `denoiser` is a folder that is there, and what scripts call their own.
    assert looked_up - {"denoiser", "__version__"} == set(geodiff.__all__)
    assert seen - {"VERSION"} == set(geodiff.__all__)
    assert geodiff.__version__ == VERSION
    for one in checked.body:
        for name in one.names if isinstance(one, ast.ImportFrom) else ():
            home = importlib.import_module(f"{'geodiff' if one.level else ''}{one.module or ''}")
            assert name.name == "VERSION" or getattr(geodiff, name.name) is getattr(home, name.name)


PUBLIC = [
    *(name for name in geodiff.__all__ if isinstance(getattr(geodiff, name), ModuleType)),
    *(f"analysis.{name}" for name in geodiff.analysis.__all__),
    *("learned.distillation", "inverse.operators"),
]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_modules_list_their_names(name: str) -> None:
    """So that `*`, completion and type checkers show them, and not what a module imports."""
    module = importlib.import_module(f"geodiff.{name}")
    listed = module.__all__
    assert len(listed) == len(set(listed))
    for one in listed:
        if not hasattr(module, one):  # a module of a package, which `*` imports
            importlib.import_module(f"{module.__name__}.{one}")
    defined = {
        key
        for key, value in vars(module).items()
        if not key.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }
    assert defined <= set(listed)


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


def test_modules_of_analysis_are_there_after_the_import_alone() -> None:
    code = (
        "import pkgutil, sys, geodiff\n"
        "names = [module.name for module in pkgutil.iter_modules(geodiff.analysis.__path__)]\n"
        "assert not [name for name in sys.modules if name.startswith('geodiff.analysis.')]\n"
        "for name in names: getattr(geodiff.analysis, name)\n"
        "assert [name for name in names if name not in geodiff.analysis.__doc__] == []\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        geodiff.analysis.nothing  # noqa: B018
