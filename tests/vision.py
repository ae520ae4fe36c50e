"""torchvision, whichever torch its operators were built for: what imports it for its data sets or transforms can."""

import importlib
import importlib.util
import re
import sys
from types import ModuleType

import torch

_named = torch.library.Library("torchvision", "FRAGMENT")


def load() -> ModuleType | None:
    """torchvision; None where it is not installed. Operators that a build for another torch lacks are named only."""
    if importlib.util.find_spec("torchvision") is None:
        return None
    for _ in range(8):
        try:
            return importlib.import_module("torchvision")
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            _named.define(f"{missing[1]}() -> ()")
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[name]
    raise RuntimeError("torchvision asks for operators without end")
