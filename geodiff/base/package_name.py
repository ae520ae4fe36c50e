"""What this package is called where packages are installed from, and the other project that has its import name.

On the public index `geodiff` is another project, and installs a folder of that name, as this one does. Where both lie
in one folder their files mix: the later one to arrive owns geodiff/__init__.py, and removing either breaks the other.
pip does not notice, so the package looks for itself.
"""

import sys
import warnings
from pathlib import Path

#: What `pip install` calls this package; Python imports it as geodiff.
DISTRIBUTION = "optimal-denoiser"
_OTHER = "geodiff"


def install_hint(extra: str) -> str:
    """How to install what an extra of this package brings; extras are listed in pyproject.toml."""
    return f"install it with: pip install {DISTRIBUTION}[{extra}]"


def other_project() -> str | None:
    """What is wrong where packages are imported from and what to do about it; None where this project is alone."""
    return _both_installed() or _init_replaced()


def _both_installed() -> str | None:
    for folder in dict.fromkeys(Path(entry or ".").absolute() for entry in sys.path):
        for record in folder.glob(f"{_OTHER}-*.dist-info"):
            version = record.name.removeprefix(f"{_OTHER}-").removesuffix(".dist-info")
            return (
                f"two projects are imported as geodiff, and both are installed: {DISTRIBUTION}, which this is, and "
                f"{_OTHER} {version}, in {folder}. Either may be broken. To have this one alone: "
                f"pip uninstall {_OTHER} {DISTRIBUTION}, and then pip install {DISTRIBUTION}"
            )
    return None


def _init_replaced() -> str | None:
    """geodiff/__init__.py is not ours, or gone: the other project was installed over this one, or removed from it."""
    package = sys.modules["geodiff"]
    try:
        if package.__file__ is not None and b"geodiff.base" in Path(package.__file__).read_bytes():
            return None
    except OSError:  # packed into something that is no folder, where nothing is installed over anything
        return None
    finding = "missing" if package.__file__ is None else "another project's"
    folder = Path(next(iter(package.__path__))).parent
    return (
        f"geodiff/__init__.py of {DISTRIBUTION} is {finding}, in {folder}: a project of the same import name was "
        f"installed over it or removed from it. To put it right: pip install --force-reinstall --no-deps {DISTRIBUTION}"
    )


def warn_of_other_project() -> None:
    """Warns where the other project is installed too. A look at the names in each folder of sys.path: 1 ms."""
    found = other_project()
    if found is not None:
        warnings.warn(found, RuntimeWarning, stacklevel=2)
