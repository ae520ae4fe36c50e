"""The walk down the noise levels, writing every state to where it is kept."""

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from geodiff.solvers.combination import combine
from geodiff.solvers.step import Evaluate, Step, Visited

Callback = Callable[[int, float, Tensor, Tensor], object]


def walk(
    step_of: Step,
    evaluate: Evaluate,
    levels: Sequence[float],
    states: Tensor,
    outputs: Tensor,
    *,
    callback: Callback | None = None,
    steps: Iterable[int] | None = None,
    analytical_first_step: bool = False,
) -> None:
    """x_{s+1} = step_of(x_s), r_s = evaluate(x_s; sigma_s), s = 0..S-1, from x_0 = states[0].

    levels   [S + 1]             sigma_s
    states   [S + 1, B, *shape]  x_s; all but the first are written here
    outputs  [S, B, *shape]      r_s; written here
    steps    0..S-1, as an iterable that shows progress; analytical_first_step: r_0 = 0 instead of an evaluation

    Beyond what `evaluate` and `callback` do, nothing here waits for the device, looks at a value, or allocates, so that
    it can be recorded as one graph. Raises ValueError for a step that returns something else than the next x.
    """
    history: list[Visited] = []
    for step in range(len(levels) - 1) if steps is None else steps:
        sigma, x, denoised, place = levels[step], states[step], outputs[step], states[step + 1]
        if analytical_first_step and step == 0:
            denoised.zero_()
        else:
            combine(evaluate, x, sigma, 1.0, (), denoised)
        if callback is not None:
            callback(step, sigma, x, denoised)
        following = step_of(evaluate, x, sigma, levels[step + 1], denoised, history, place)
        if following is not place:
            place.copy_(_checked(following, x, step_of))
        history.append(Visited(sigma, x, denoised))


def _checked(following: object, x: Tensor, step_of: Step) -> Tensor:
    if isinstance(following, Tensor) and following.shape == x.shape:
        return following
    name = getattr(step_of, "__name__", type(step_of).__name__)
    raise ValueError(
        f"solver: expected a next state of shape {list(x.shape)} from {name}, found {what(following)}; "
        f"allowed the shape of x"
    )


def what(value: object) -> str:
    """How an error names a value that was returned: a tensor by dtype and shape, something else by type."""
    return f"a tensor of {value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
