"""What one evaluation would ask of a device, counted without one: launches, and places where the host waits for it.

A launch is an operation of PyTorch that computes or copies, or a launch of Triton, whose interpreter's own operations
do not count. A wait is whatever takes a number, a size or a shape from the device, or sends it what lies in pageable
memory.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime import interpreter

#: Operations that only look at a tensor in another way, or get memory for one.
_FREE = frozenset(
    {
        "alias", "as_strided", "detach", "empty", "empty_like", "empty_strided", "expand", "lift_fresh", "new_empty",
        "new_empty_strided", "permute", "reshape", "select", "slice", "split", "squeeze", "t", "transpose", "unbind",
        "unsqueeze", "view", "_unsafe_view",
    }
)  # fmt: skip
#: Operations whose result's size, or whose result, the host has to know.
_WAITING = frozenset(
    {"_local_scalar_dense", "bincount", "is_nonzero", "item", "masked_select", "nonzero", "repeat_interleave", "unique"}
)
#: What takes a tensor to the host, and by the same name what makes one from it.
_TO_HOST = ("cpu", "numpy", "tolist", "__bool__", "__float__", "__int__", "__index__", "item")
_FROM_HOST = ("tensor", "as_tensor", "from_numpy", "asarray")


@dataclass
class Counted(TorchDispatchMode):
    """What happened within `counted`, by name."""

    launches: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    _inside: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def __hash__(self) -> int:
        return id(self)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self._inside:
            name = function.overloadpacket.__name__
            masks = name in ("index", "index_put_") and any(
                isinstance(one, torch.Tensor) and one.dtype == torch.bool for one in args[1]
            )
            if name in _WAITING or masks:
                self.waits[name] += 1
            if name not in _FREE:
                self.launches[name] += 1
        return function(*args, **(kwargs or {}))

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What happens here is not counted."""
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    """Counts what the thread does meanwhile."""
    count = Counted()
    execute = interpreter.GridExecutor.__call__

    def launch(self: Any, *args: Any, **kwargs: Any) -> Any:
        count.launches[self.fn.__name__] += 1
        with count.aside():
            return execute(self, *args, **kwargs)

    def waiting(function: Any, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not count._inside:
                count.waits[name] += 1
            with count.aside():
                return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(interpreter.GridExecutor, "__call__", launch)
        for owner, names in ((torch.Tensor, _TO_HOST), (torch, _FROM_HOST)):
            for name in names:
                patch.setattr(owner, name, waiting(getattr(owner, name), name))
        with count:
            yield count
