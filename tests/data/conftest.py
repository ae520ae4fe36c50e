"""What tests of readers share."""

from types import ModuleType

import pytest

from tests import vision as torchvision


@pytest.fixture(scope="session")
def vision() -> ModuleType:
    """torchvision.datasets."""
    package = torchvision.load()
    if package is None:
        pytest.skip("torchvision is not installed: pip install torchvision")
    return package.datasets


@pytest.fixture(scope="session")
def hugging_face() -> ModuleType:
    """The package datasets."""
    return pytest.importorskip("datasets", reason="pip install datasets")
