"""The type of a denoiser, for all who ask one: solvers, analyses, adapters, methods of restoration."""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

#: r(x, sigma) -> [B, *shape] for x [B, *shape]: a module of this package, a network behind its preconditioning, or a
#: function. Who asks says what sigma is, a 0-d tensor as a rule; conditions such as class_labels go by name.
Denoiser: TypeAlias = Callable[..., Tensor]
