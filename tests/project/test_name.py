"""The distribution's name, and the other project that is imported by the same name."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from geodiff.base.package_name import DISTRIBUTION, install_hint

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.py")])


def imported(*folders: Path) -> str:
    """What `import geodiff` says where these folders are searched too."""
    code = f"import sys; sys.path[:0] = {[str(ROOT)]!r}; sys.path += {[str(f) for f in folders]!r}; import geodiff"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr


def test_the_name_is_not_the_other_projects() -> None:
    assert PROJECT["name"] == DISTRIBUTION != "geodiff"


def test_every_hint_names_the_distribution_and_an_extra_of_it() -> None:
    extras = set(PROJECT["optional-dependencies"])
    hints = [
        extra
        for source in sorted((ROOT / "geodiff").rglob("*.py"))
        for extra in re.findall(r"install_hint\([\"'](\w+)[\"']\)", source.read_text(encoding="utf-8"))
    ]
    assert set(hints) == {"data", "plots", "report", "restore"}
    assert install_hint("data") == f"install it with: pip install {DISTRIBUTION}[data]"
    for source in SOURCES:
        text = source.read_text(encoding="utf-8")
        assert not re.search(r"pip install '?\"?geodiff", text), source
        for named in re.findall(rf"{DISTRIBUTION}\[([\w,]+)\]", text):
            assert set(named.split(",")) <= extras, source


def test_the_other_project_is_named_when_it_is_installed_too(tmp_path: Path) -> None:
    assert imported(tmp_path) == ""
    (tmp_path / "geodiff-0.9.5.dist-info").mkdir()
    said = imported(tmp_path)
    for part in (DISTRIBUTION, "geodiff 0.9.5", str(tmp_path), f"pip uninstall geodiff {DISTRIBUTION}"):
        assert part in said


def test_what_the_other_project_leaves_of_this_one_is_named(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "geodiff" / "base", tmp_path / "geodiff" / "base")
    start = tmp_path / "geodiff" / "__init__.py"
    # Without the folder that a wheel of ours is installed in: a folder without __init__.py gives way to a package.
    others = "[path for path in sys.path if not (Path(path) / 'geodiff').is_dir()]"
    code = f"import sys; from pathlib import Path; sys.path[:] = [{str(tmp_path)!r}, *{others}]; import geodiff.base"

    def said() -> str:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr

    for there, finding in ((False, "is missing"), (True, "is another project's")):
        if there:
            start.touch()  # the other project's is empty
        for part in (
            f"__init__.py of {DISTRIBUTION} {finding}",
            str(tmp_path),
            f"--force-reinstall --no-deps {DISTRIBUTION}",
        ):
            assert part in said()
    shutil.copy(ROOT / "geodiff" / "__init__.py", start)
    assert said() == ""


@pytest.mark.parametrize("url", sorted(PROJECT["urls"].values()))
def test_urls_are_public(url: str) -> None:
    assert re.match(r"https://(arxiv\.org|doi\.org|github\.com|[\w.-]+\.readthedocs\.io)/", url)
