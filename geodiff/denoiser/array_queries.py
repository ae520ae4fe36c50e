"""Queries of any kind that data may be: arrays, lists, what has __dlpack__; and answers in the kind of the query."""

import functools
from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from geodiff.base.array_like import Array, as_tensor, like


class WithData(Protocol):
    """What has data, on whose device it answers."""

    @property
    def data(self) -> Tensor: ...


def of_any_kind(method: Callable[..., Any]) -> Any:
    """Lets `x` be an array or list; the answer to an array of NumPy is one."""

    @functools.wraps(method)
    def answered(self: WithData, x: Array, *args: Any, **kwargs: Any) -> Any:
        if isinstance(x, Tensor):
            return method(self, x, *args, **kwargs)
        return like(method(self, as_tensor(x, "x").to(self.data.device), *args, **kwargs), x)

    return answered
