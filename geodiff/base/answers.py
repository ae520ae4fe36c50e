"""What a denoiser or network that others wrote has answered, checked before anything is made of it."""

from torch import Tensor

from geodiff.base.arguments import check_finite


def check_answer(answer: object, x: Tensor, name: str, place: str) -> Tensor:
    """answer itself, once it is known to be floating, finite and of x's shape; TypeError or ValueError else.

    name, place  who answered, and at which level or time: what an error says
    """
    if not isinstance(answer, Tensor) or not answer.is_floating_point():
        raise TypeError(
            f"{name}: expected a floating tensor at {place}, found {what(answer)}; allowed one of x's shape"
        )
    if answer.shape != x.shape:
        raise ValueError(
            f"{name}: expected an output of x's shape {list(x.shape)} at {place}, found {list(answer.shape)}; "
            f"allowed no other shape"
        )
    check_finite(answer, f"{name}: at {place}")
    return answer


def what(value: object) -> str:
    """How an error names a value that was returned: a tensor by dtype and shape, something else by type."""
    return f"a tensor of {value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
