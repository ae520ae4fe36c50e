"""Whether Python may look at the values of tensors: inside a compiler or torch.func there are none yet."""

import torch


def values_are_known() -> bool:
    """Whether a check may branch on values. Where not, what uses them checks them, when the graph runs."""
    return not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()
