"""The types of the compiled cores name what the cores have, and nothing else."""

import ast
import importlib
from pathlib import Path

import pytest

import geodiff


def declared(tree: ast.Module | ast.ClassDef) -> set[str]:
    """Names of functions, classes and fields in the body of a stub or of one of its classes."""
    named = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    fields = {
        node.target.id for node in tree.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    return {name for name in named | fields if not name.startswith("_")}


def present(holder: object) -> set[str]:
    return {name for name in dir(holder) if not name.startswith("_")}


@pytest.mark.parametrize("name", ["_cpu", "_cuda"])
def test_a_stub_declares_what_its_core_has(name: str) -> None:
    try:
        core = importlib.import_module(f"geodiff.{name}")
    except ImportError:
        pytest.skip(f"{name} was not built")
    stub = ast.parse((Path(geodiff.__file__).parent / f"{name}.pyi").read_text(encoding="utf-8"))
    assert declared(stub) == present(core)
    for node in stub.body:
        if isinstance(node, ast.ClassDef):
            assert declared(node) == present(getattr(core, node.name)), node.name
