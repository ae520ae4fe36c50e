"""The loop over the noise levels, writing every state to where it is kept."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from geodiff.solvers.evaluation import Evaluator, Level, Step

Callback = Callable[[int, float, Tensor, Tensor], object]


@dataclass(frozen=True, eq=False)
class Walk:
    """Where a trajectory is kept: x_{s+1} = step(x_s), r_s = r(x_s; sigma_s), s = 0..S-1, from x_0 = states[0].

    levels   [S + 1]             sigma_s
    states   [S + 1, B, *shape]  x_s; all but the first are written
    outputs  [S, B, *shape]      r_s; written
    analytical_first_step  r_0 = 0 instead of an evaluation
    """

    levels: tuple[float, ...]
    states: Tensor
    outputs: Tensor
    analytical_first_step: bool = False

    def run(
        self,
        step_of: Step,
        evaluate: Evaluator,
        *,
        callback: Callback | None = None,
        steps: Iterable[int] | None = None,
        first: int = 0,
        after: Callable[[int], object] | None = None,
    ) -> None:
        """Takes all steps from `first` on; `steps` is first..S-1, as an iterable that shows progress.

        first  where another walk has left off: states to x_first, and outputs before it, are known as far back as the
               solver looks
        after  called as after(s) when x_s is known

        Beyond what `evaluate` and `callback` do, nothing here waits for the device, looks at a value, or allocates, so
        that it can be recorded as one graph. Raises ValueError for a step that returns something else than the next x.
        """
        history = [Level(self.levels[s], self.states[s], self.outputs[s]) for s in range(first)]
        for step in range(first, len(self.levels) - 1) if steps is None else steps:
            sigma, x, denoised = self.levels[step], self.states[step], self.outputs[step]
            evaluate.place = self.states[step + 1]
            if self.analytical_first_step and step == 0:
                denoised.zero_()
            else:
                evaluate.combine(x, sigma, 1.0, (), denoised)
            if callback is not None:
                callback(step, sigma, x, denoised)
            at = Level(sigma, x, denoised)
            following = step_of(evaluate, at, self.levels[step + 1], history)
            if following is not evaluate.place:
                evaluate.place.copy_(_checked(following, x, step_of))
            history.append(at)
            if after is not None:
                after(step + 1)


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
