"""What is missing on the machine is said in one line, by make and by setup.py; the build files agree."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
PATH_ALONE = "-DCMAKE_FIND_USE_CMAKE_SYSTEM_PATH=FALSE"  # CMake looks into /usr/bin too


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What is looked at before the first source is compiled."""
    for name in ("Makefile", "pyproject.toml", "setup.py", "constraints.txt", "CMakeLists.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "csrc" / "cpu", tmp_path / "csrc" / "cpu")
    (tmp_path / "geodiff").mkdir()
    (tmp_path / "kernels").mkdir()
    return tmp_path


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def made(checkout: Path, *arguments: str) -> str:
    """All that a `make install` says that cannot succeed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "CXX"))}
    done = subprocess.run(
        ["make", "install", *arguments], cwd=checkout, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert not (checkout / ".venv").exists()
    return done.stdout + done.stderr


def built(checkout: Path, **environment: str) -> str:
    """The last line that setup.py says of a build that cannot succeed."""
    tools = checkout / "tools"  # alone on the PATH, so that what is missing is missing
    tools.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext"],
        cwd=checkout,
        env={"HOME": str(checkout), "PATH": str(tools), "CMAKE_ARGS": PATH_ALONE, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def link(checkout: Path, *names: str) -> None:
    for name in names:
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not on the PATH")
        program(checkout / "tools", name, f'exec "{found}" "$@"')


def test_make_names_the_python_that_is_too_old(checkout: Path) -> None:
    old = program(checkout / "tools", "python3.10", 'test "$1" = --version && echo Python 3.10.13 || exit 1')
    (line,) = made(checkout, f"PYTHON={old}").strip().splitlines()
    assert "needs Python 3.11 or later" in line
    assert "Python 3.10.13" in line
    (line,) = made(checkout, "PYTHON=no-such-python").strip().splitlines()
    assert "needs Python 3.11 or later; no-such-python is not one" in line


def test_make_says_that_there_is_no_compiler(checkout: Path) -> None:
    (line,) = made(checkout, "CXX=no-such-compiler").strip().splitlines()
    assert "needs a C++17 compiler" in line


@pytest.mark.parametrize("name", ["c++", "g++", "clang++"])
def test_make_finds_the_only_compiler_there_is(checkout: Path, name: str) -> None:
    link(checkout, "make", "find", "uname")
    program(checkout / "tools", "python3", f'exec "{sys.executable}" "$@"')
    program(checkout / "tools", name, "exit 0")
    made = subprocess.run(
        ["make", "-n", "install"],
        cwd=checkout,
        env={"PATH": str(checkout / "tools")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert made.returncode == 0, made.stderr


def test_setup_says_that_cmake_is_missing(checkout: Path) -> None:
    assert re.match(r"error: cmake 3\.18 or later is needed.*pip install cmake", built(checkout))


def test_setup_says_that_the_compiler_is_missing(checkout: Path) -> None:
    link(checkout, "cmake", "ninja")
    assert re.match(r"error: a C\+\+17 compiler is needed.*variable CXX", built(checkout))
    assert re.match(r"error: the environment variable CXX names no", built(checkout, CXX="no-such-compiler"))


def test_setup_says_that_ninja_and_make_are_missing(checkout: Path) -> None:
    link(checkout, "cmake", "c++")
    assert re.match(r"error: CMake needs ninja or make.*pip install ninja", built(checkout))


def test_setup_names_the_choices_of_cuda(checkout: Path) -> None:
    assert built(checkout, GEODIFF_CUDA="maybe") == "error: GEODIFF_CUDA: found 'maybe', allowed ON, OFF, AUTO"


def asked_for(requirement: Requirement, seen: set[str]) -> Iterator[str]:
    """The names of everything that a requirement brings into this environment."""
    for extra in ["", *requirement.extras]:
        key = f"{canonicalize_name(requirement.name)}[{extra}]"
        if key in seen:
            continue
        seen.add(key)
        yield canonicalize_name(requirement.name)
        if canonicalize_name(requirement.name) == "torch":
            continue  # what it asks for depends on the platform, and pip resolves it
        for text in metadata.requires(requirement.name) or []:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                yield from asked_for(needed, seen)


def test_constraints_name_all_that_is_installed_without_resolving() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    named = {canonicalize_name(Requirement(line).name) for line in lines if not line.startswith("#")}
    for missing in ("import-linter", "build"):
        if not any(d.name and canonicalize_name(d.name) == missing for d in metadata.distributions()):
            pytest.skip(f"{missing}, of the extra dev, is not installed")
    seen: set[str] = set()
    brought = set(asked_for(Requirement(f"{PROJECT['name']}[test,dev]"), seen)) | {"setuptools", "pip"}
    assert len(brought) > 60
    assert brought - named - {PROJECT["name"], "pip"} == set()


def test_the_sdist_holds_the_whole_checkout() -> None:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("this is no checkout to compare with")
    done = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = {name for name in done.stdout.split("\0") if name and (ROOT / name).exists()}
    # What setuptools adds by itself, and what pyproject.toml says of the package.
    named = {"LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"}
    data = PYPROJECT["tool"]["setuptools"]["package-data"].items()
    patterns = [
        "geodiff/**/*.py",
        *(f"{package.replace('.', '/')}/{name}" for package, names in data for name in names),
    ]
    for line in (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines():
        match line.split():
            case ["include", *files]:
                named |= set(files)
            case ["recursive-include", folder, *names]:
                patterns += [f"{folder}/**/{name}" for name in names]
    held = named | {path.relative_to(ROOT).as_posix() for pattern in patterns for path in ROOT.glob(pattern)}
    assert tracked - held == set()


def test_classifiers_wheels_and_the_public_ci_name_the_same_pythons() -> None:
    prefix = "Programming Language :: Python :: 3."
    minors = {int(c.removeprefix(prefix)) for c in PROJECT["classifiers"] if c.startswith(prefix)}
    assert PROJECT["requires-python"] == f">=3.{min(minors)}"
    assert {f"cp3{minor}-*" for minor in minors} == set(PYPROJECT["tool"]["cibuildwheel"]["build"])
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    (versions,) = re.findall(r"python: \[(.*)\]", workflow)
    assert {f'"3.{minor}"' for minor in minors} == set(versions.split(", "))


def test_the_public_ci_runs_what_can_be_run_by_hand() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    commands = re.findall(r"^\s*(?:- )?run: (.*)$", workflow, re.MULTILINE)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {".ci/run", "make test", "make wheels"} <= set(commands)
    for command in commands:
        match = re.fullmatch(r"\.ci/run|sudo apt-get install --yes \S+|make ([a-z-]+)( MATRIX=\S+ ?.*)?", command)
        assert match, command
        assert match[1] is None or match[1] in targets, command
