"""The test suite on each Python, PyTorch and numpy that the package promises: `make matrix`.

Each combination gets an environment of its own in build/matrix, in which `make test` runs, and which is then removed.
What the registry or this machine does not have (a numpy for that Python, an interpreter) is named and left out. From
the command line: combinations such as 3.12-2.6-1.26, or with an x for the newest; without any, all of them.
"""

import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
TORCHES = ("2.6", "2.8", "x")
NUMPYS = ("1.26", "x")
#: Without what they ask for (torchvision, wandb, clip, ...): the tests need their samplers, which need none of it.
ALONE = ("k-diffusion", "azula")
#: What does not say that its newest version needs another numpy, and refuses to be imported beside this one.
BESIDE = {"1.26": ("pyarrow<26",)}


class LeftOut(Exception):
    """A combination that cannot be had here, and why."""


def required(package: str, version: str) -> str:
    return package if version == "x" else f"{package}=={version}.*"


def interpreter(version: str) -> str:
    """A Python of that version: on the PATH, or pyenv's."""
    folders = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{version}.*/bin")
    for found in [shutil.which(f"python{version}"), *(str(folder / "python") for folder in folders)]:
        if found and subprocess.run([found, "--version"], capture_output=True).returncode == 0:
            return found
    raise LeftOut(f"there is no Python {version} on this machine")


def uv(*arguments: str) -> None:
    """Raises LeftOut with what uv says of what cannot be installed together."""
    done = subprocess.run([sys.executable, "-m", "uv", *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise LeftOut(" ".join(done.stderr.split()))


def set_up(environment: Path, python: str, torch: str, numpy: str) -> None:
    uv("venv", "--quiet", "--python", interpreter(python), str(environment))
    install = ("pip", "install", "--quiet", "--python", str(environment))
    versions = (required("torch", torch), required("numpy", numpy), *BESIDE.get(numpy, ()))
    # Newest of all else, so that what comes out tomorrow is tried today.
    uv(*install, *versions, "--requirement", "pyproject.toml", "--extra", "test", "--extra", "dev", "setuptools")
    uv(*install, "--no-deps", *ALONE)
    uv(*install, "--no-deps", "--no-build-isolation", "--editable", ".")
    (environment / ".installed").touch()  # for make: there is nothing left to install


def run(combination: str) -> str:
    """Sets up, tests and removes one combination; returns what came of it in one line."""
    environment = ROOT / "build" / "matrix" / combination
    shutil.rmtree(environment, ignore_errors=True)
    begun = time.monotonic()
    try:
        set_up(environment, *combination.split("-"))
        passed = subprocess.run(["make", "test", f"VENV={environment.relative_to(ROOT)}"], cwd=ROOT).returncode == 0
    except LeftOut as reason:
        return f"left out: {reason}"
    finally:
        shutil.rmtree(environment, ignore_errors=True)
    return f"{'passed' if passed else 'FAILED'} in {time.monotonic() - begun:.0f} s"


def main() -> None:
    combinations = sys.argv[1:] or ["-".join(parts) for parts in itertools.product(PYTHONS, TORCHES, NUMPYS)]
    outcomes = {}
    for combination in combinations:
        print(f"== Python, PyTorch, numpy: {combination}", flush=True)
        outcomes[combination] = run(combination)
        print(f"== {combination}: {outcomes[combination]}", flush=True)
    print("\n".join(["", *(f"{combination:16} {outcome}" for combination, outcome in outcomes.items())]))
    if not any("passed" in outcome for outcome in outcomes.values()) or any("FAILED" in o for o in outcomes.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
