"""torchvision's data sets, whichever torch its operators were built for."""

import importlib
import re
import sys
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="session")
def vision() -> ModuleType:
    """torchvision.datasets. A build for another torch lacks its operators; named, they do for data sets."""
    named = torch.library.Library("torchvision", "FRAGMENT")
    for _ in range(8):
        try:
            return importlib.import_module("torchvision.datasets")
        except ModuleNotFoundError:
            pytest.skip("torchvision is not installed: pip install torchvision")
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            named.define(f"{missing[1]}() -> ()")
            for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[module]
    raise AssertionError("torchvision asks for operators without end")
