"""Imports point one way: the contract in pyproject.toml holds, and would notice."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with kernels/ where it is installed: the checker reads folders."""
    folder = tmp_path_factory.mktemp("copy")
    without = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "geodiff", folder / "geodiff", ignore=without)
    shutil.copytree(ROOT / "kernels", folder / "geodiff" / "kernels", ignore=without)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def checked(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"]
    return subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True)


def test_imports_point_one_way(copy: Path) -> None:
    pytest.importorskip("importlinter", reason="import-linter is not installed")
    found = checked(copy)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("backends/cpu.py", "geodiff.denoiser.module"),
        ("kernels/bounds.py", "geodiff.backends.engine"),
        ("base/files.py", "geodiff.reference"),
        ("solvers/jump.py", "geodiff.report"),
    ],
)
def test_an_import_that_points_the_other_way_is_found(copy: Path, where: str, what: str) -> None:
    pytest.importorskip("importlinter", reason="import-linter is not installed")
    file = copy / "geodiff" / where
    kept = file.read_text()
    try:
        file.write_text(f"{kept}\nimport {what}\n")
        found = checked(copy)
    finally:
        file.write_text(kept)
    assert found.returncode == 1
    assert "BROKEN" in found.stdout
