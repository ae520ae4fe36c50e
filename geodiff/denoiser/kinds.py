"""Queries of any kind that data may be: arrays, lists, what has __dlpack__; and answers in the kind of the query."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from torch import Tensor

from geodiff.base.foreign import Array, as_tensor, like

if TYPE_CHECKING:
    from geodiff.denoiser.over_data import OverData

S = TypeVar("S", bound="OverData")
P = ParamSpec("P")
R = TypeVar("R")


def of_any_kind(method: Callable[Concatenate[S, Tensor, P], R]) -> Any:
    """Lets `x` be an array or list; the answer to an array of NumPy is one."""

    @functools.wraps(method)
    def answered(self: S, x: Array, *args: P.args, **kwargs: P.kwargs) -> R:
        if isinstance(x, Tensor):
            return method(self, x, *args, **kwargs)
        return like(method(self, as_tensor(x, "x").to(self.data.device), *args, **kwargs), x)

    return answered
