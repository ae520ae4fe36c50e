"""What a test does without what it needs: it is skipped, or fails where the run is about that."""

import os
from typing import NoReturn

import pytest

from geodiff import backends


def needed(reason: str) -> NoReturn:
    if os.environ.get("GEODIFF_NEEDS_GPU") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def need_backend(name: str) -> None:
    if not backends.is_available(name):
        needed(f"{name}: {backends.available()[name]}")
